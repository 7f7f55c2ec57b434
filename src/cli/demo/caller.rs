//! A plain client of the node's own API: what the demo seeds, it seeds the way users would.

use std::time::Duration;

use serde_json::Value;

use crate::cli::CliError;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls the API.
#[derive(Clone)]
pub struct Caller {
    agent: ureq::Agent,
    base: String,
}

impl Caller {
    /// For the API at `base`.
    pub fn new(base: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        Self { agent, base: base.to_owned() }
    }

    /// Posts JSON; whatever is not a success is an error that shows the problem.
    pub fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Result<Value, CliError> {
        self.send(ureq::http::Method::POST, path, token, body)
    }

    /// Puts JSON.
    pub fn put(&self, path: &str, token: &str, body: &Value) -> Result<Value, CliError> {
        self.send(ureq::http::Method::PUT, path, Some(token), body)
    }

    fn send(
        &self,
        method: ureq::http::Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Value, CliError> {
        let failed = |reason: String| CliError::Failed(format!("{method} {path}: {reason}"));
        let mut request = ureq::http::Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.to_string()).map_err(|error| failed(error.to_string()))?;
        let mut response = self.agent.run(request).map_err(|error| failed(error.to_string()))?;
        let text =
            response.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
        if !response.status().is_success() {
            return Err(failed(format!("{} {text}", response.status())));
        }
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }
}

/// A text field of an answer.
pub fn text(value: &Value, field: &str) -> Result<String, CliError> {
    let missing = || CliError::Failed(format!("an answer has no {field}: {value}"));
    value.pointer(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(missing)
}
