//! A spooled message as it lies in the spool's file: with a mark before it and a digest of it, so that it is found and
//! known to be whole in a file whose tables can no longer be read.
//!
//! ```text
//!   mark 8 │ digest 8 │ offset 8 │ cursor 8 │ topic's length 4 │ body's length 4 │ topic │ body
//! ```
//!
//! Numbers are little-endian. The digest is the first bytes of the SHA-256 of all that follows it.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Not text, so that no topic and no body holds it by chance.
const MARK: [u8; 8] = [0xf7, 0x57, 0x50, 0x52, 0xec, 0x01, 0x9e, 0xff];
/// Bytes before the topic.
const HEADER: usize = 40;
/// Where what the digest is of begins.
const DIGESTED: usize = 16;
/// A mark that says more than this is none.
const BYTES_MAX: usize = 64 << 20;
/// What is read of a damaged file at once.
const CHUNK: u64 = 1 << 20;

/// A spooled message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the order.
    pub offset: u64,
    /// Its topic.
    pub topic: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// Logical size of a message: what the spool's limit counts.
pub fn logical_bytes(topic: &str, body: &[u8]) -> u64 {
    (topic.len() + body.len()) as u64
}

/// [`logical_bytes`] of a message that is written already.
pub fn logical_bytes_of(written: &[u8]) -> u64 {
    written.len().saturating_sub(HEADER) as u64
}

/// The bytes of a message at `offset`; all before `cursor` was acknowledged when it was written.
pub fn write(offset: u64, cursor: u64, topic: &str, body: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(HEADER + topic.len() + body.len());
    written.extend_from_slice(&MARK);
    written.extend_from_slice(&[0; 8]);
    written.extend_from_slice(&offset.to_le_bytes());
    written.extend_from_slice(&cursor.to_le_bytes());
    // Longer ones than 4 GiB do not fit into a message of MQTT either; if there were one, it would not be read back.
    written.extend_from_slice(&(topic.len() as u32).to_le_bytes());
    written.extend_from_slice(&(body.len() as u32).to_le_bytes());
    written.extend_from_slice(topic.as_bytes());
    written.extend_from_slice(body);
    let digest = digest(&written);
    written[8..DIGESTED].copy_from_slice(&digest);
    written
}

/// The message and its cursor; `None` where it is not what was written.
pub fn read(written: &[u8]) -> Option<(Record, u64)> {
    let whole = written.starts_with(&MARK) && length(written) == Some(written.len());
    if !whole || written[8..DIGESTED] != digest(written) {
        return None;
    }
    let topic_end = HEADER + u32_at(written, 32)? as usize;
    let topic = String::from_utf8(written.get(HEADER..topic_end)?.to_vec()).ok()?;
    let body = written.get(topic_end..)?.to_vec();
    Some((Record { offset: u64_at(written, 16)?, topic, body }, u64_at(written, 24)?))
}

/// Every whole message that lies in `source`, in the order of its bytes, as [`read`] has it and as it was written: also such as
/// were deleted and not yet written over, and some more than once.
///
/// # Errors
///
/// `source` cannot be read, or `found` says so.
pub fn find<E: From<io::Error>>(
    mut source: impl Read,
    mut found: impl FnMut(&Record, u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut window = Vec::new();
    loop {
        let ended = source.by_ref().take(CHUNK).read_to_end(&mut window)? == 0;
        let mut at = 0;
        while let Some(ahead) = window[at..].windows(MARK.len()).position(|bytes| bytes == MARK) {
            at += ahead;
            let rest = &window[at..];
            match length(rest) {
                Some(length) if length <= rest.len() => match read(&rest[..length]) {
                    Some((record, cursor)) => {
                        found(&record, cursor, &rest[..length])?;
                        at += length;
                    }
                    None => at += MARK.len(),
                },
                Some(length) if length > BYTES_MAX || ended => at += MARK.len(),
                None if ended => at += MARK.len(),
                _ => break,
            }
        }
        if ended {
            return Ok(());
        }
        // What may be the beginning of a message stays.
        let waits = window[at..].starts_with(&MARK);
        let kept = if waits { at } else { at.max(window.len().saturating_sub(MARK.len() - 1)) };
        window.drain(..kept);
    }
}

/// What the header says that the message has in all; `None` where there is no whole header.
fn length(written: &[u8]) -> Option<usize> {
    Some(HEADER + u32_at(written, 32)? as usize + u32_at(written, 36)? as usize)
}

fn digest(written: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(&written[DIGESTED..])[..8]);
    first
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_not_at_all_where_a_bit_is_turned() {
        let written = write(7, 3, "w/n/notice", b"{}");
        let record = Record { offset: 7, topic: "w/n/notice".to_owned(), body: b"{}".to_vec() };
        assert_eq!(read(&written), Some((record, 3)));
        assert_eq!(logical_bytes_of(&written), logical_bytes("w/n/notice", b"{}"));
        for bit in 0..written.len() * 8 {
            let mut turned = written.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&turned), None, "bit {bit}");
        }
        assert!((0..written.len()).all(|length| read(&written[..length]).is_none()));
    }

    #[test]
    fn whole_messages_are_found_wherever_they_lie() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut file = Vec::new();
        let mut expected = Vec::new();
        for offset in 0..300 {
            let body: Vec<u8> = (0..random.usize(..20_000)).map(|_| random.u8(..)).collect();
            let mut written = write(offset, 0, "w/n/cam/gate/events", &body);
            match random.u8(..4) {
                0 => written.truncate(random.usize(..written.len())),
                1 => {
                    let at = random.usize(..written.len());
                    written[at] ^= 1;
                }
                _ => expected.push(offset),
            }
            file.extend(MARK.iter().take(random.usize(..9)));
            file.extend_from_slice(&written);
        }
        assert!(file.len() > 2 * CHUNK as usize);
        let mut found = Vec::new();
        find::<io::Error>(&file[..], |record, _, _| {
            found.push(record.offset);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, expected);
    }
}
