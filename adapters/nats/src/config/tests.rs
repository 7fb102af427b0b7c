use super::*;

#[test]
fn an_invalid_configuration_is_refused_with_the_option_to_change() {
    let config = || NatsConfig::new("localhost");
    let reason = |config: &NatsConfig| config.servers().unwrap_err().to_string();
    for app in ["", "a.b", "a>", "a*", "ä", &"a".repeat(65)] {
        assert!(reason(&config().app(app)).contains("`app`"), "{app}");
    }
    assert!(reason(&config().max_queue(0)).contains("`max_queue`"));
    assert!(reason(&config().connect_timeout(Duration::ZERO)).contains("`connect_timeout`"));
    for url in ["", "ws://host", "http://host", "nats://", "host:70000", "ho st"] {
        assert!(reason(&config().server(url)).contains("url 2"), "{url}");
    }
    assert!(reason(&config().server("nats://a%4@host")).contains("%25"));
}

#[test]
fn servers_are_added_one_by_one_or_separated_by_commas() {
    let servers = NatsConfig::new("nats://a, tls://b:1").server("[::1]").servers().unwrap();
    let names: Vec<_> = servers.iter().map(|server| (server.host(), server.port())).collect();
    assert_eq!(names, [("a", 4222), ("b", 1), ("::1", 4222)]);
}

#[test]
fn a_url_may_contain_a_login() {
    let login = |url: &str| login(&url.parse().unwrap()).unwrap();
    assert_eq!(login("nats://ann:p%40ss%25@host"), Some(("ann".into(), Some("p@ss%".into()))));
    assert_eq!(login("nats://s3cret@host"), Some(("s3cret".into(), None)));
    assert_eq!(login("nats://host"), None);
}

#[test]
fn secrets_are_not_printed() {
    let config = NatsConfig::new("nats://ann:secret@localhost").token("secret");
    assert!(!format!("{config:?}").contains("secret"));
    let error = NatsConfig::new("nats://ann:secret@local host").servers().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}
