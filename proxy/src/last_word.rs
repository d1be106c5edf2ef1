//! What the controller said last of the pod's mode, kept in the pod's own memory: a proxy that is started again while the controller is
//! away goes on as strict as the one before it, although the pod may have been admitted otherwise.

use std::{fs, io, path::PathBuf};

use crate::config::Config;

const STRICT: &str = "strict";
const PERMISSIVE: &str = "permissive";

/// Beside the admin socket, where nobody but the proxy writes.
fn file(config: &Config) -> PathBuf {
    config.admin_socket.with_file_name("mtls")
}

/// Whether the controller's last word was `strict`; `None` when it has said nothing to this pod yet. What cannot be read was
/// written by nobody of weft's, and refuses plaintext.
pub fn read(config: &Config) -> Option<bool> {
    match fs::read_to_string(file(config)) {
        Ok(text) => Some(text != PERMISSIVE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, "the controller's last word cannot be read: plaintext is refused until it speaks");
            Some(true)
        }
    }
}

/// Keeps its word. Without a place for it the proxy works as well, and is as strict as the pod was admitted when it starts again.
pub fn keep(config: &Config, strict: bool) {
    let word = if strict { STRICT } else { PERMISSIVE };
    let file = file(config);
    if fs::read_to_string(&file).is_ok_and(|text| text == word) {
        return;
    }
    // Whole or not at all: half a word would be another one.
    let new = file.with_extension("new");
    let kept = fs::write(&new, word).and_then(|()| fs::rename(&new, &file));
    if let Err(error) = kept {
        tracing::warn!(%error, file = %file.display(), "the controller's word cannot be kept");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use weft_proto::names::env;

    use super::*;

    fn config(folder: &std::path::Path) -> Config {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let socket = folder.join("admin.sock").display().to_string();
        let variables = [
            (env::POD_NAME, "web-0"),
            (env::POD_NAMESPACE, "shop"),
            (env::POD_UID, "u-1"),
            (env::POD_IPS, "10.0.0.7"),
            (env::SERVICE_ACCOUNT, "web"),
            (env::TRUST_BUNDLE, &root),
            (env::DISCOVERY_ADDRESS, "weft-routes:15010"),
            (env::IDENTITY_ADDRESS, "weft-identity:15012"),
            (env::ADMIN_SOCKET, &socket),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Config::from(&HashMap::from(variables)).unwrap()
    }

    #[test]
    fn the_last_word_outlives_the_process_and_nothing_was_said_before_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        assert_eq!(read(&config), None);
        for strict in [true, false, false, true] {
            keep(&config, strict);
            assert_eq!(read(&config), Some(strict));
        }
    }

    #[test]
    fn a_word_that_weft_did_not_write_refuses_plaintext() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        for text in ["", "permissiv", "permissive\n"] {
            fs::write(file(&config), text).unwrap();
            assert_eq!(read(&config), Some(true), "{text:?}");
        }
        fs::remove_file(file(&config)).unwrap();
        fs::create_dir(file(&config)).unwrap();
        assert_eq!(read(&config), Some(true));
    }
}
