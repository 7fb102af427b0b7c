//! Tokens: what a login returns, and a client connects with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use tower_channels::Rejected;

const LIFETIME: Duration = Duration::from_secs(3600);

/// Signs and verifies tokens.
#[derive(Clone)]
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Claims {
    /// The name of the user.
    pub(crate) sub: String,
    /// The number of the login: a token with another one than the user's is logged out.
    pub(crate) login: i64,
    /// In seconds since 1970.
    exp: u64,
}

impl Tokens {
    pub(crate) fn new(secret: &str) -> Self {
        let secret = secret.as_bytes();
        let (encoding, decoding) =
            (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Self { encoding, decoding }
    }

    pub(crate) fn sign(&self, user: &str, login: i64) -> jsonwebtoken::errors::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims { sub: user.to_owned(), login, exp: (now + LIFETIME).as_secs() };
        jsonwebtoken::encode(&Header::default(), &claims, &self.encoding)
    }

    /// A token that does not verify is the client's fault, not a failure of the server.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        let validation = Validation { leeway: 0, ..Validation::new(Algorithm::HS256) };
        let verified = jsonwebtoken::decode(token, &self.decoding, &validation);
        Ok(verified.map_err(|error| Rejected::reason(error.to_string()))?.claims)
    }
}

impl Claims {
    pub(crate) fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.exp)
    }
}
