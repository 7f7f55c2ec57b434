//! Letters handed to a mail server (RFC 5321), over TLS unless it is switched off.
//!
//! What the server refuses for good (a mailbox that does not exist) is given up; everything else, and
//! that it does not know our password too, is tried again: the operator can mend it.

use std::pin::Pin;
use std::time::Duration;

use actors::mail::{Carrier, Delivery, Letter};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use storage::id::TenantId;
use zeroize::Zeroizing;

use super::MailError;
use super::compose::Compose;
use crate::config::{Mail, MailTls, SmtpServer};

/// Answers that are about our credential or the session, not about the letter (RFC 4954 §6).
const NOT_ABOUT_THE_LETTER: [u16; 6] = [421, 454, 530, 534, 535, 538];
/// Characters of a server's answer that are kept.
const REASON_CHARS_MAX: usize = 200;

/// A mail server.
pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    compose: Compose,
}

impl Smtp {
    pub(super) fn new(
        mail: &Mail,
        server: &SmtpServer,
        password: Option<Zeroizing<String>>,
        compose: Compose,
    ) -> Result<Self, MailError> {
        let SmtpServer { host, port } = server;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(*port)
            .timeout(Some(Duration::from_millis(mail.timeout_ms)));
        if mail.tls != MailTls::None {
            let mut parameters = TlsParameters::builder(host.clone());
            if let Some(path) = &mail.ca_file {
                let read = std::fs::read(path);
                let pem =
                    read.map_err(|source| MailError::Authority { path: path.clone(), source })?;
                parameters = parameters.add_root_certificate(Certificate::from_pem(&pem)?);
            }
            let parameters = parameters.build()?;
            builder = builder.tls(match mail.tls {
                MailTls::Starttls => Tls::Required(parameters),
                MailTls::Tls | MailTls::None => Tls::Wrapper(parameters),
            });
        }
        if let (Some(username), Some(password)) = (&mail.username, password) {
            builder = builder.credentials(Credentials::new(username.clone(), password.to_string()));
        }
        Ok(Self { transport: builder.build(), compose })
    }
}

impl Carrier for Smtp {
    fn carry(&self, letter: Letter) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async move {
            let message = match self.compose.message(&letter) {
                Ok(message) => message,
                Err(error) => return Delivery::Never { reason: error.to_string() },
            };
            let Err(error) = self.transport.send(message).await else { return Delivery::Sent };
            let code = error.status().map(u16::from);
            let is_about_it = code.is_some_and(|code| !NOT_ABOUT_THE_LETTER.contains(&code));
            if error.is_permanent() && is_about_it {
                let reason = error.to_string().chars().take(REASON_CHARS_MAX).collect();
                return Delivery::Never { reason };
            }
            tracing::warn!(mail.id = %letter.id, %error, "the mail server does not take a mail now");
            Delivery::Later
        })
    }

    fn forget(&self, _: TenantId) -> std::io::Result<()> {
        // What was sent is in other hands.
        Ok(())
    }
}
