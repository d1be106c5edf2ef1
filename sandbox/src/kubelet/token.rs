//! Projected ServiceAccount tokens, signed by the sandbox's own key. The controller knows its public half, and takes these
//! tokens where a cluster's API server would review them.

use crate::object::{Object, name, namespace, uid};
use anyhow::Context as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use std::{fmt, fs, os::unix::fs::OpenOptionsExt as _, path::Path, time::SystemTime};

/// Who the tokens say has issued them; the controller takes no others.
pub const ISSUER: &str = "weft-sandbox";

/// The key that signs.
pub struct Signer(EncodingKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// A token and the time at which another one should take its place.
#[derive(Clone, Debug)]
pub struct Token {
    /// The JWT.
    pub text: String,
    /// Seconds since 1970: when four fifths of its life are over, as the kubelet does.
    pub renew_at: u64,
}

impl Signer {
    /// Makes a key, and writes its public half as PEM.
    pub fn create(public: &Path) -> anyhow::Result<Signer> {
        let pair = rcgen::KeyPair::generate().context("making a key")?;
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o644).open(public);
        std::io::Write::write_all(
            &mut file.context("writing the token key")?,
            pair.public_key_pem().as_bytes(),
        )?;
        Ok(Signer(
            EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).context("reading the token key")?,
        ))
    }

    /// A token for a pod's ServiceAccount.
    pub fn sign(&self, pod: &Object, account: &Object, audience: &str, life_seconds: u64) -> anyhow::Result<Token> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": [audience], "iat": now, "nbf": now, "exp": now + life_seconds,
            "sub": format!("system:serviceaccount:{}:{}", namespace(account), name(account)),
            "kubernetes.io": {
                "namespace": namespace(pod),
                "pod": {"name": name(pod), "uid": uid(pod)},
                "serviceaccount": {"name": name(account), "uid": uid(account)},
            },
        });
        let text = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.0).context("signing a token")?;
        Ok(Token {
            text,
            renew_at: now + life_seconds * 4 / 5,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::Value;

    #[test]
    fn a_token_says_whose_it_is_and_the_public_key_proves_it() {
        let directory = tempfile::tempdir().unwrap();
        let public = directory.path().join("token.pub");
        let signer = Signer::create(&public).unwrap();
        let pod = json!({"metadata": {"name": "web-0", "namespace": "shop", "uid": "p"}});
        let account = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "s"}});
        let token = signer.sign(&pod, &account, "weft-ca", 600).unwrap();
        let mut wanted = Validation::new(Algorithm::ES256);
        wanted.set_audience(&["weft-ca"]);
        let key = DecodingKey::from_ec_pem(&fs::read(&public).unwrap()).unwrap();
        let claims = decode::<Value>(&token.text, &key, &wanted).unwrap().claims;
        assert_eq!(claims["sub"], "system:serviceaccount:shop:web");
        assert_eq!(claims["kubernetes.io"]["pod"], json!({"name": "web-0", "uid": "p"}));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
    }
}
