//! A browser without pictures: keeps cookies by host and port, and follows where it is led.

use std::collections::{BTreeMap, HashMap};

use super::client::{Client, Reply};

/// Someone who surfs.
#[derive(Default)]
pub struct Surfer {
    jars: HashMap<String, BTreeMap<String, String>>,
}

/// Origin and the rest of a URL.
fn split(url: &str) -> (&str, &str) {
    let host = url.find("://").expect("an absolute URL") + 3;
    let path = url[host..].find('/').map_or(url.len(), |at| host + at);
    (&url[..path], if path == url.len() { "/" } else { &url[path..] })
}

impl Surfer {
    /// What it holds for a host.
    pub fn cookies(&mut self, origin: &str) -> &mut BTreeMap<String, String> {
        self.jars.entry(origin.to_owned()).or_default()
    }

    fn visit(&mut self, url: &str, form: Option<&str>) -> Reply {
        let (origin, path) = split(url);
        let held: Vec<_> =
            self.cookies(origin).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let client = Client::new(origin);
        let client =
            if held.is_empty() { client } else { client.with_header("cookie", &held.join("; ")) };
        let path = path.split('#').next().unwrap_or(path);
        let reply = match form {
            Some(form) => client.send(
                "POST",
                path,
                Some("application/x-www-form-urlencoded"),
                form.as_bytes(),
            ),
            None => client.call("GET", path, None),
        };
        for (_, set) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = set.split_once(';').unwrap_or((set, ""));
            let (name, value) = pair.split_once('=').expect("a cookie");
            let jar = self.cookies(origin);
            let lower = attributes.to_ascii_lowercase();
            if value.is_empty() || lower.contains("max-age=0") || lower.contains("1970") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        reply
    }

    /// Goes somewhere, and no further.
    pub fn go(&mut self, url: &str) -> Reply {
        self.visit(url, None)
    }

    /// Goes somewhere and on to wherever it is led, as long as that does not begin with `end`; where it is then,
    /// and what is there, or where it would be led.
    pub fn follow(&mut self, url: &str, form: Option<&str>, end: &str) -> (String, Reply) {
        let (mut url, mut reply) = (url.to_owned(), self.visit(url, form));
        for _ in 0..10 {
            let Some(location) = reply.header("location").filter(|_| reply.status / 100 == 3)
            else {
                return (url, reply);
            };
            let (origin, _) = split(&url);
            let next = if location.starts_with('/') {
                format!("{origin}{location}")
            } else {
                location.to_owned()
            };
            if next.starts_with(end) {
                return (next, reply);
            }
            url = next;
            reply = self.visit(&url, None);
        }
        panic!("led on and on, to {url}");
    }
}

/// A parameter of a URL's query, decoded as far as tests need it.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1.split('#').next()?;
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).expect("a query");
    pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}
