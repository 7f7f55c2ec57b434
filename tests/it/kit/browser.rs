//! A real browser with a virtual authenticator, in a child process of its own: Debian's Chromium, driven by
//! npm's playwright-core.

use std::cell::RefCell;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::peers::Peer;

/// Where Debian puts it.
const CHROMIUM: &str = "/usr/bin/chromium";

/// A browser with one page, alive until dropped.
pub struct Browser(RefCell<Peer>);

impl Browser {
    /// Nothing where the browser or its driver is not installed; says so then.
    pub fn start() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let modules = folder.join("node_modules/playwright-core");
        let needed = [
            (Path::new(CHROMIUM), "apt-get install chromium"),
            (&modules, "npm install --prefix tests/peers --no-package-lock --ignore-scripts"),
        ];
        for (path, install) in needed {
            if !path.exists() {
                println!(
                    "SKIPPED: {} is absent, so there is no browser. ./tests/run installs it: {install}",
                    path.display()
                );
                return None;
            }
        }
        let script = folder.join("passkeys.mjs");
        let peer = Peer::start(Path::new("node"), &[script.as_os_str(), CHROMIUM.as_ref()])?;
        Some(Self(RefCell::new(peer)))
    }

    fn ask(&self, line: Value) -> Map<String, Value> {
        self.0.borrow_mut().ask(&line)
    }

    fn done(&self, line: Value) -> Map<String, Value> {
        let answer = self.ask(line);
        assert!(!answer.contains_key("error"), "{answer:?}");
        answer
    }

    /// Goes to a page that a server has; answers its origin.
    pub fn open(&self, url: &str) -> String {
        let answer = self.done(json!({"do": "open", "url": url}));
        answer["origin"].as_str().expect("an origin").to_owned()
    }

    /// Goes to an empty page with that origin. No server is asked.
    pub fn open_blank(&self, origin: &str) {
        let answer = self.done(json!({"do": "open", "url": origin, "blank": true}));
        assert_eq!(answer["origin"], origin);
    }

    /// Types into the page's inputs.
    pub fn fill(&self, fields: &Value) {
        self.done(json!({"do": "fill", "fields": fields}));
    }

    /// Presses a button.
    pub fn press(&self, name: &str) {
        self.done(json!({"do": "press", "name": name}));
    }

    /// Follows a link.
    pub fn follow(&self, name: &str) {
        self.done(json!({"do": "follow", "name": name}));
    }

    /// Waits until the page says something; answers its address, and the cookies that scripts see.
    pub fn read(&self, until: &str) -> (String, String) {
        let answer = self.shown(until);
        let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
        (text("url"), text("cookies"))
    }

    /// Waits until the page says something; answers all that it says.
    pub fn said(&self, until: &str) -> String {
        self.shown(until)["text"].as_str().expect("a text").to_owned()
    }

    fn shown(&self, until: &str) -> Map<String, Value> {
        let answer = self.done(json!({"do": "read", "until": until}));
        self.shoot(&until.replace(|letter: char| !letter.is_alphanumeric(), "-"));
        answer
    }

    /// Takes a picture, if whoever runs a test wants any.
    #[expect(
        clippy::disallowed_methods,
        reason = "where pictures go, if whoever runs a test wants them"
    )]
    pub fn shoot(&self, name: &str) {
        if let Some(folder) = std::env::var_os("BULKHEAD_SCREENSHOTS") {
            let path = Path::new(&folder).join(format!("{name}.png"));
            self.done(json!({"do": "shoot", "path": path}));
        }
    }

    /// Makes the window that wide, and light or dark.
    pub fn dress(&self, width: u32, dark: bool) {
        self.done(json!({"do": "dress", "width": width, "dark": dark}));
    }

    /// How wide the page is with everything on it unfolded, and how wide the window, both in pixels.
    pub fn widths(&self) -> (u64, u64) {
        let answer = self.done(json!({"do": "measure"}));
        let number = |name: &str| answer[name].as_u64().expect("a number");
        (number("page"), number("window"))
    }

    /// Has the page make or use a passkey; the browser's error otherwise.
    pub fn ceremony(&self, act: &str, options: &Value) -> Result<Value, String> {
        let mut answer = self.ask(json!({"do": act, "options": options}));
        match answer.remove("credential") {
            Some(credential) => Ok(credential),
            None => Err(answer["error"].as_str().expect("an error").to_owned()),
        }
    }

    /// Whether the authenticator's user gives a PIN from now on.
    pub fn verify_user(&self, on: bool) {
        self.done(json!({"do": "verify", "on": on}));
    }

    /// Sets what the authenticator has counted.
    pub fn count(&self, to: u32) {
        let answer = self.done(json!({"do": "count", "to": to}));
        assert_ne!(answer["credentials"], 0, "there is no passkey in the authenticator");
    }

    /// Whether another library verifies a new passkey and a use of it.
    pub fn check(&self, created: &Value, used: &Value, origin: &str, rp: &str) -> (bool, bool) {
        let line =
            json!({"do": "check", "created": created, "used": used, "origin": origin, "rp": rp});
        let answer = self.done(line);
        (answer["created"] == true, answer["used"] == true)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // So that it removes its profile from the disk; a driver that is stuck is ended by its pid after that.
        self.0.borrow_mut().end();
    }
}
