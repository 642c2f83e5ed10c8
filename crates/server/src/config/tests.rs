use super::*;

fn load(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let own =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    Config::load(&Sources { file: None, environment: own(environment), flags: own(flags) })
}

#[test]
fn the_defaults_are_allowed_and_local() {
    let config = Config::default();
    assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 7077)));
    assert_eq!((config.drain.0, config.body_max.0), (20_000, 32 << 20));
}

#[test]
fn flags_win_over_the_environment() {
    let config =
        load(&[("body-max", "1MiB")], &[("MILLPOND_BODY_MAX", "5"), ("MILLPOND_DRAIN", "1s")]).unwrap();
    assert_eq!((config.body_max.0, config.drain.0), (1 << 20, 1_000));
}

#[test]
fn a_public_address_needs_a_token() {
    let error = load(&[("listen", "0.0.0.0:7077")], &[]).unwrap_err().to_string();
    assert!(error.contains("set `tokens_file`"), "{error}");
    assert!(
        load(&[("listen", "0.0.0.0:7077"), ("token", "sixteen bytes or more"), ("plain-http", "true")], &[])
            .is_ok()
    );
}

#[test]
fn a_public_address_needs_tls_or_a_word_that_it_does_not() {
    let public = ("listen", "[::]:7077");
    for (flags, part) in [
        (&[public, ("tokens-file", "x")][..], "set `tls_cert`"),
        (&[public, ("plain-http", "true")], "set `tokens_file`"),
        (&[public, ("tls-cert", "x"), ("tls-key", "y")], "set `tokens_file`"),
        (&[("tls-cert", "x")], "tls_key: is needed beside `tls_cert`"),
        (&[("tls-key", "x")], "tls_cert: is needed beside `tls_key`"),
    ] {
        let error = load(flags, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{flags:?}: {error}");
    }
    let good = [public, ("tokens-file", "x"), ("tls-cert", "x"), ("tls-key", "y")];
    assert!(load(&good, &[]).is_ok());
}

#[test]
fn a_public_address_for_faktory_clients_needs_the_same() {
    let public = ("faktory", "0.0.0.0:7419");
    for (flags, part) in [
        (&[public][..], "faktory: everybody"),
        (&[public, ("tokens-file", "x")], "faktory: tokens and jobs could be read"),
        (&[("faktory", "7419")], "--faktory: \"7419\" is not an address"),
    ] {
        let error = load(flags, &[]).unwrap_err().to_string();
        assert!(error.starts_with(part), "{flags:?}: {error}");
    }
    assert!(load(&[public, ("tokens-file", "x"), ("plain-http", "true")], &[]).is_ok());
    assert_eq!(load(&[("faktory", "")], &[]).unwrap().faktory, None);
}

#[test]
fn mistakes_name_their_place_and_what_was_meant() {
    for (flags, environment, expected) in [
        (&[("listn", "x")][..], &[][..], "--listn: there is no setting `listn`: did you mean `listen`?"),
        (
            &[],
            &[("MILLPOND_LISTN", "x")],
            "MILLPOND_LISTN: there is no setting `listn`: did you mean `listen`?",
        ),
        (&[("drain", "soon")], &[], "--drain: expected a span"),
        (&[("listen", "7077")], &[], "--listen: \"7077\" is not an address"),
        (&[], &[("MILLPOND_DURABILITY", "hard")], "MILLPOND_DURABILITY: a durability is one of"),
        (&[("connections-max", "0")], &[], "connections_max: must be more than 0"),
        (&[("token", "short")], &[], "token: is too short"),
    ] {
        let error = load(flags, environment).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(load(&[], &[("MILLPOND_URL", "http://somewhere"), ("HOME", "x")]).is_ok());
}

#[test]
fn a_file_is_read_and_its_unknown_keys_are_refused() {
    let directory = std::env::temp_dir().join(format!("millpond-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("millpond.toml");
    std::fs::write(&path, "connections_max = 5\nhosts = [\"pond.example\"]\n").unwrap();
    let read = || Config::load(&Sources { file: Some(&path), ..Sources::default() });
    let config = read().unwrap();
    assert_eq!((config.connections_max.0, config.hosts.0), (5, vec!["pond.example".to_owned()]));
    std::fs::write(&path, "conections_max = 5\n").unwrap();
    assert!(read().unwrap_err().to_string().contains("did you mean `connections_max`?"));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn keys_come_from_a_file_or_the_environment_and_are_never_shown() {
    let key = storage::Key::generate().unwrap();
    let directory = std::env::temp_dir().join(format!("millpond-keys-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("keys");
    std::fs::write(&path, format!("# ours\n{}\n", *key)).unwrap();
    let (file, text) = (path.display().to_string(), key.as_str());
    let from_file = load(&[("encryption-key-file", &file)], &[]).unwrap();
    let from_environment = load(&[], &[("MILLPOND_ENCRYPTION_KEY", text)]).unwrap();
    assert_eq!(from_file.encryption_key, from_environment.encryption_key);
    assert!(!format!("{from_file:?}{from_environment:?}").contains(&text[..10]));
    let both = load(&[("encryption-key-file", &file)], &[("MILLPOND_ENCRYPTION_KEY", text)]);
    assert!(both.unwrap_err().to_string().contains("exclude each other"));
    let wrong = load(&[], &[("MILLPOND_ENCRYPTION_KEY", "canary")]).unwrap_err().to_string();
    assert!(wrong.starts_with("MILLPOND_ENCRYPTION_KEY: line 1") && !wrong.contains("canary"), "{wrong}");
    let missing = load(&[("encryption-key-file", "/nowhere/keys")], &[]).unwrap_err().to_string();
    assert!(missing.starts_with("encryption_key_file: cannot read"), "{missing}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_secret_is_never_shown() {
    let config = load(&[("token", "canary-canary-canary")], &[]).unwrap();
    assert!(!format!("{config:?}").contains("canary"));
}
