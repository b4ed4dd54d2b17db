//! Who may ask: the token, as `Authorization: Bearer TOKEN` from programs and as the password of `Basic` from
//! browsers, which can ask a person for nothing else.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::Secret;

/// The user name that browsers send with the token as password.
const USER: &str = "watchpost";

/// Digests of the header values that open the door; none = no door.
#[derive(Clone)]
pub(super) struct Access(Option<[[u8; 32]; 2]>);

impl Access {
    pub(super) fn new(token: Option<&Secret>) -> Self {
        Self(token.map(|token| {
            let basic = base64(format!("{USER}:{}", token.expose()).as_bytes());
            [digest("bearer", token.expose()), digest("basic", &basic)]
        }))
    }

    /// Whether a request with these headers may pass. Digests are compared, so that the time taken says nothing of
    /// the token.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(accepted) = &self.0 else { return true };
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, credentials)) = value.and_then(|value| value.split_once(' ')) else { return false };
        let given = digest(&scheme.to_ascii_lowercase(), credentials.trim());
        accepted.contains(&given)
    }
}

fn digest(scheme: &str, credentials: &str) -> [u8; 32] {
    Sha256::digest(format!("{scheme} {credentials}")).into()
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(access: &Access, value: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        access.allows(&headers)
    }

    #[test]
    fn base64_is_rfc_4648() {
        let vectors = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let encoded = vectors.map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn only_the_token_opens_the_door() {
        let access = Access::new(Some(&Secret::new("s3cret".to_owned())));
        let basic = format!("Basic {}", base64(b"watchpost:s3cret"));
        for good in ["Bearer s3cret", "bearer  s3cret", &basic] {
            assert!(allows(&access, Some(good)), "{good}");
        }
        let other = format!("Basic {}", base64(b"watchpost:other"));
        for bad in ["Bearer s3cre", "Bearer s3crets", "s3cret", "Bearer", "Basic s3cret", "Digest s3cret", &other] {
            assert!(!allows(&access, Some(bad)), "{bad}");
        }
        assert!(!allows(&access, None));
        assert!(allows(&Access::new(None), None));
    }
}
