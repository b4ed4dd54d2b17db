//! Checks `[mqtt]`.

use std::time::Duration;

use super::address::Address;
use super::{Origin, Origins, Resolver, any_given};
use crate::config::file::FileMqtt;
use crate::config::report::Section;
use crate::config::{Broker, KEEP_ALIVE_MIN, MqttConfig, MqttProtocol, Secret, TlsConfig};

/// Longest base of topics, in bytes: leaves room for the levels below it in MQTT's 65,535.
const LEVELS_BYTES_MAX: usize = 256;
/// Longest client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// Least and most bytes of the spool.
const SPOOL_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
/// Most that fits the protocol's 16 bits.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(65_535);

/// The broker, and the user and password that stood in its address.
struct Target {
    broker: Option<Broker>,
    tls: bool,
    embedded: bool,
    user: Option<String>,
    password: Option<Secret>,
}

impl Resolver<'_> {
    pub(super) fn mqtt(&mut self, section: &Section<'_>, file: &FileMqtt, node: &str) -> Option<MqttConfig> {
        let origins = [
            ("password_file", file.password_file.as_deref().map(Origin::File)),
            ("password_env", file.password_env.as_deref().map(Origin::Env)),
            ("password_credential", file.password_credential.as_deref().map(Origin::Credential)),
        ];
        let mut target = self.broker(section, file);
        self.unused(section, &target);
        let login = (target.user.take(), target.password.take());
        let (user, password) = self.login(section, login, file.user.as_deref(), &origins);
        if let Some(Broker::Embedded { listen }) = &target.broker {
            let named = user.is_some() || section.given("user");
            let locked = named && any_given(section, &origins);
            if !listen.ip().is_loopback() && !locked {
                let text = "others can reach this address: give user and password_file, or listen on 127.0.0.1";
                self.report.at(section, "embedded_listen", text);
            }
        }
        if target.embedded && file.protocol == MqttProtocol::V5 {
            let text = "the embedded broker speaks MQTT 3.1.1 only: remove this or give the broker's address";
            self.report.at(section, "protocol", text);
        }
        let base = self.levels(section, "base", &file.base);
        let client_id = self.client_id(section, file.client_id.as_deref(), node);
        let keep_alive = self.keep_alive(section, file.keep_alive);
        if !SPOOL_BYTES.contains(&file.spool) {
            self.report.at(section, "spool", "give a size from 1MiB to 1TiB");
        }
        let tls = self.tls(section, file);
        Some(MqttConfig {
            broker: target.broker?,
            base: base?,
            protocol: file.protocol,
            client_id: client_id?,
            keep_alive: keep_alive?,
            user,
            password,
            tls,
            spool_bytes: file.spool,
        })
    }

    fn broker(&mut self, section: &Section<'_>, file: &FileMqtt) -> Target {
        let written = file.broker.expose();
        let mut target = Target { broker: None, tls: false, embedded: false, user: None, password: None };
        if written == "embedded" {
            target.embedded = true;
            let listen = self.listen(section, "embedded_listen", &file.embedded_listen);
            target.broker = listen.map(|listen| Broker::Embedded { listen });
            return target;
        }
        let lower = |(scheme, rest): (&str, _)| (scheme.to_ascii_lowercase(), rest);
        let (tls, rest) = match written.split_once("://").map(lower) {
            Some((scheme, rest)) if scheme == "mqtt" => (false, rest),
            Some((scheme, rest)) if scheme == "mqtts" => (true, rest),
            _ => {
                self.report.at(section, "broker", "give \"embedded\", \"mqtt://host\" or \"mqtts://host\"");
                return target;
            }
        };
        target.tls = tls;
        match Address::parse(rest) {
            Ok(address) if address.rest.is_empty() || address.rest == "/" => {
                let port = address.port.unwrap_or(if tls { 8883 } else { 1883 });
                target.broker = Some(Broker::Remote { host: address.host, port, tls });
                (target.user, target.password) = (address.user, address.password);
            }
            Ok(_) => {
                let text = "a broker's address ends after host and port (in a user or password write / as %2F)";
                self.report.at(section, "broker", text);
            }
            Err(text) => self.report.at(section, "broker", text),
        }
        target
    }

    /// Settings that this broker makes no use of.
    fn unused(&mut self, section: &Section<'_>, target: &Target) {
        if target.broker.is_none() {
            return;
        }
        for key in ["ca_file", "cert_file", "key_file"] {
            if !target.tls && section.given(key) {
                let text = "TLS settings need a broker with mqtts://: remove this or change the broker";
                self.report.at(section, key, text);
            }
        }
        if !target.embedded && section.given("embedded_listen") {
            let text = "this is for broker = \"embedded\": remove this or change the broker";
            self.report.at(section, "embedded_listen", text);
        }
    }

    /// User and password from an address and from settings of their own, each given at most once.
    pub(super) fn login(
        &mut self,
        section: &Section<'_>,
        (url_user, url_password): (Option<String>, Option<Secret>),
        user: Option<&str>,
        origins: &Origins<'_>,
    ) -> (Option<String>, Option<Secret>) {
        if url_user.is_some() && user.is_some() {
            self.report.at(section, "user", "the address has a user too: give only one of the two");
        }
        if user.is_some_and(|user| user.is_empty() || user.chars().any(char::is_control)) {
            self.report.at(section, "user", "it is empty or holds a control character: give a user name");
        }
        let in_url = url_password.is_some();
        let password = self.secret(section, origins).or(url_password);
        let user = user.map(str::to_owned).or(url_user);
        let given = origins.iter().find(|(_, origin)| origin.is_some()).map(|(key, _)| *key);
        if let Some(key) = given
            && in_url
        {
            self.report.at(section, key, "the address has a password too: give only one of the two");
        }
        if user.is_none() && (given.is_some() || in_url) {
            self.report.at(section, "user", "there is a password but no user: give user");
        }
        (user, password)
    }

    /// One topic level or several, with which a topic may begin.
    pub(super) fn levels(&mut self, section: &Section<'_>, key: &str, levels: &str) -> Option<String> {
        let level = |l: &str| !l.is_empty() && !l.chars().any(|c| c.is_control() || c == '+' || c == '#');
        if levels.len() <= LEVELS_BYTES_MAX && !levels.starts_with('$') && levels.split('/').all(level) {
            return Some(levels.to_owned());
        }
        let text =
            "give topic levels such as \"watchpost\" or \"site/west\": no / at either end, no + # or leading $";
        self.report.at(section, key, text);
        None
    }

    fn client_id(&mut self, section: &Section<'_>, written: Option<&str>, node: &str) -> Option<String> {
        let id = written.map_or_else(|| format!("watchpost-{node}"), str::to_owned);
        if (1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control) {
            return Some(id);
        }
        let text = format!("give 1 to {CLIENT_ID_BYTES_MAX} bytes without control characters");
        self.report.at(section, "client_id", text);
        None
    }

    fn keep_alive(&mut self, section: &Section<'_>, value: Duration) -> Option<Duration> {
        if value.subsec_nanos() != 0 {
            self.report.at(section, "keep_alive", "give whole seconds, such as \"15s\"");
            return None;
        }
        self.between(section, "keep_alive", value, KEEP_ALIVE_MIN..=KEEP_ALIVE_MAX)
    }

    fn tls(&mut self, section: &Section<'_>, file: &FileMqtt) -> TlsConfig {
        for (key, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
            if section.given(key) && !section.given(other) {
                self.report.at(section, key, format!("a client certificate needs its key: give {other} too"));
            }
        }
        TlsConfig {
            ca_file: self.pem(section, "ca_file", file.ca_file.as_deref(), false),
            cert_file: self.pem(section, "cert_file", file.cert_file.as_deref(), false),
            key_file: self.pem(section, "key_file", file.key_file.as_deref(), true),
        }
    }
}
