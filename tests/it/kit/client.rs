//! A client that says what it expects: the wanted status is an argument of every call.

use std::time::Duration;

use serde_json::Value;

/// An answer, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Name and value in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
    /// The problem's code: the last segment of its type; where errors have SCIM's form, of the page that
    /// `Link` leads to.
    pub fn problem(&self) -> String {
        if self.header("content-type") == Some("application/scim+json") {
            let link = self.header("link").expect("an error of SCIM names its problem");
            let uri = link.trim_start_matches('<').split('>').next().expect("a link");
            return uri.rsplit('/').next().expect("a last segment").to_owned();
        }
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let kind = self.json()["type"].as_str().expect("a problem has a type").to_owned();
        kind.rsplit('/').next().expect("a last segment").to_owned()
    }
    /// The capability that a refusal names.
    pub fn action(&self) -> String {
        let detail = self.json()["detail"].as_str().unwrap_or_default().to_owned();
        match detail.rsplit_once("needs ") {
            Some((_, action)) => action.to_owned(),
            None => self.str("/action"),
        }
    }
    /// A text member of the JSON body.
    pub fn str(&self, pointer: &str) -> String {
        let json = self.json();
        let value = json.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no text at {pointer}: {json}")).to_owned()
    }
    /// The one cookie that it sets, as a browser will send it.
    pub fn cookie(&self) -> String {
        let set: Vec<_> = self.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
        let [(_, cookie)] = &set[..] else { panic!("not one cookie: {self:?}") };
        assert!(cookie.starts_with("__Host-bulkhead="), "{cookie}");
        cookie.split(';').next().expect("a value").to_owned()
    }
    /// What two answers must share to be indistinguishable: all but the clock and the request's own id.
    pub fn essence(&self) -> Essence {
        let own = ["date", "x-request-id", "traceparent", "ratelimit", "connection"];
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| !own.contains(&name.as_str()));
        headers.sort();
        (self.status, headers, self.body.clone())
    }
}

/// What two answers must share to be indistinguishable: status, headers, body.
pub type Essence = (u16, Vec<(String, String)>, Vec<u8>);

/// Someone with or without a token.
#[derive(Clone)]
pub struct Client {
    pub base: String,
    agent: ureq::Agent,
    pub token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { base: base.to_owned(), agent: config.into(), token: None, headers: Vec::new() }
    }
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }
    pub fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// Sends bytes as they are.
    pub fn send(&self, method: &str, path: &str, content_type: Option<&str>, body: &[u8]) -> Reply {
        self.try_send(method, path, content_type, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends bytes as they are; an error when no answer came.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Reply, ureq::Error> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = if body.is_empty() && content_type.is_none() {
            self.agent.run(request.body(()).expect("a sound request"))?
        } else {
            self.agent.run(request.body(body).expect("a sound request"))?
        };
        let (parts, mut body) = response.into_parts();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        Ok(Reply { status: parts.status.as_u16(), headers, body: body.read_to_vec()? })
    }

    /// Sends JSON, or nothing.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        match body {
            Some(json) => {
                self.send(method, path, Some("application/json"), json.to_string().as_bytes())
            }
            None => self.send(method, path, None, &[]),
        }
    }

    fn expect(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> Reply {
        let reply = self.call(method, path, body);
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        reply
    }
    pub fn get(&self, path: &str, status: u16) -> Reply {
        self.expect("GET", path, None, status)
    }
    pub fn delete(&self, path: &str, status: u16) -> Reply {
        self.expect("DELETE", path, None, status)
    }
    pub fn post(&self, path: &str, body: Value, status: u16) -> Reply {
        self.expect("POST", path, Some(&body), status)
    }
    /// A POST without a body.
    pub fn act(&self, path: &str, status: u16) -> Reply {
        self.expect("POST", path, None, status)
    }
    pub fn patch(&self, path: &str, body: Value, status: u16) -> Reply {
        self.expect("PATCH", path, Some(&body), status)
    }
    pub fn put(&self, path: &str, body: Value, status: u16) -> Reply {
        self.expect("PUT", path, Some(&body), status)
    }
}

/// Sends raw bytes over a connection of its own and reads until the server closes it or answers whole.
pub fn raw(base: &str, request: &[u8]) -> String {
    use std::io::{Read, Write};
    let address = base.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("a listening server");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(request).expect("a writable connection");
    let mut answer = Vec::new();
    // Whatever came before the server hung up is the answer.
    let _cut = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
