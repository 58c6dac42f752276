//! Logins at real servers: who gets in, who is refused, and with which disposition.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use pgsluice::{
    net::{self, Secret, SecretSource, Stream, TcpOptions, TlsOptions, Verify},
    pg::connect::{ChannelBinding, Connection, Error, Host, Kind, Options, TargetSession, sql},
    retry::{Disposition, Exit},
};
use support::{Kafka, Ports, Postgres, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORTS: Ports = Ports::SECURITY;

/// The newest and the oldest, with SCRAM and with or without TLS, also at an address that is not in the certificate.
fn scram(version: u8) -> &'static Postgres {
    static SERVERS: [OnceLock<Postgres>; 2] = [const { OnceLock::new() }; 2];
    let (at, address) = if version == 14 { (0, "127.0.0.1") } else { (1, "127.0.0.1,127.0.0.2") };
    let listen = format!("listen_addresses='{address}'");
    SERVERS[at].get_or_init(|| {
        Postgres::start(version, PORTS.postgres(at as u16), &["tls=1", "auth=scram", &listen])
    })
}

fn options(server: &Postgres) -> Options {
    at(Host::Tcp("127.0.0.1".into(), server.port()))
}

fn at(host: Host) -> Options {
    Options {
        hosts: vec![host],
        target: TargetSession::Any,
        user: "sluice".into(),
        database: "postgres".into(),
        password: Some(SecretSource::Text(Secret::new("sluice-secret".into()))),
        passfile: None,
        tls: None,
        channel_binding: ChannelBinding::Prefer,
        allow_md5: false,
        allow_cleartext: false,
        tcp: TcpOptions {
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(30),
        },
        application_name: "pg_login".into(),
        wal_sender_timeout: Duration::from_secs(15),
        decoding_memory: 32 << 20,
        extra: None,
        max_message: 1 << 30,
    }
}

/// A folder that is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pg_login-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn openssl(words: &str, files: &[&Path]) {
    let made = std::process::Command::new("openssl").args(words.split(' ')).args(files).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{words}: {}", String::from_utf8_lossy(&made.stderr));
}

fn certificate(name: &str) -> PathBuf {
    Path::new(&Kafka::certificates()).join(name)
}

fn tls(verify: Verify, ca: &str) -> Option<TlsOptions> {
    Some(TlsOptions { verify, ca: Some(certificate(ca)), client: None })
}

async fn one(connection: &mut Connection, sql: &str) -> String {
    let rows = connection.simple_query(sql).await.unwrap();
    rows[0][0].clone().unwrap()
}

async fn is_encrypted(connection: &mut Connection) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    one(connection, sql).await == "t"
}

async fn refusal(options: &Options) -> Error {
    let by_sql = sql(options, &options.hosts[0]).await.map(drop).unwrap_err();
    let error = Connection::open(options, Kind::Replication).await.map(drop).unwrap_err();
    assert_eq!(by_sql.to_string(), error.to_string(), "the two kinds are refused differently");
    assert!(!format!("{error} {error:?}").contains("sluice-secret"), "{error:?}");
    error
}

#[track_caller]
fn assert_halts(error: &Error, exit: Exit, words: &str) {
    let chain = chain(error);
    assert_eq!(error.disposition(), Disposition::Halt(exit), "{chain}");
    assert!(chain.contains(words), "{chain}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn scram_lets_in_with_and_without_tls() {
    for version in [14, 18] {
        let mut options = options(scram(version));
        for kind in [Kind::Replication, Kind::Sql] {
            options.tls = None;
            options.channel_binding = ChannelBinding::Prefer;
            let mut connection = Connection::open(&options, kind).await.unwrap();
            assert!(!is_encrypted(&mut connection).await);
            assert_eq!(connection.server_version_num() / 10_000, u32::from(version));
            options.tls = tls(Verify::Full, "ca.pem");
            for binding in
                [ChannelBinding::Require, ChannelBinding::Prefer, ChannelBinding::Disable]
            {
                options.channel_binding = binding;
                let mut connection = Connection::open(&options, kind).await.unwrap();
                assert!(is_encrypted(&mut connection).await);
                let pid = one(&mut connection, "SELECT pg_backend_pid()").await;
                assert_eq!(connection.process_id().to_string(), pid);
                connection.close().await;
            }
        }
    }
}

#[tokio::test]
async fn channel_binding_is_kept_or_refused() {
    let mut options = options(scram(18));
    options.channel_binding = ChannelBinding::Require;
    assert_halts(&refusal(&options).await, Exit::Permission, "there is no TLS");
}

#[tokio::test]
async fn every_setting_that_shapes_a_value_is_pinned() {
    for version in [14, 18] {
        let server = scram(version);
        server.sql("ALTER ROLE sluice SET datestyle = 'SQL, MDY'");
        server.sql("ALTER ROLE sluice SET bytea_output = 'escape'");
        server.sql("ALTER ROLE sluice SET statement_timeout = '1h'");
        let mut options = options(server);
        options.extra = Some("-c TimeZone=Asia/Tokyo -c work_mem=1MB".into());
        let mut expected = vec![
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
            ("client_min_messages", "warning"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("idle_session_timeout", "0"),
            ("application_name", "pg_login"),
            ("work_mem", "1MB"),
        ];
        if version >= 17 {
            server.sql("ALTER ROLE sluice SET transaction_timeout = '1h'");
            expected.push(("transaction_timeout", "0"));
        }
        let ordinary = sql(&options, &options.hosts[0]).await.unwrap();
        for (name, value) in &expected {
            let row = ordinary.query_one(&format!("SHOW {name}"), &[]).await.unwrap();
            assert_eq!(&row.get::<_, String>(0), value, "{name} on {version}");
        }
        let mut walsender = Connection::open(&options, Kind::Replication).await.unwrap();
        expected.extend([("wal_sender_timeout", "15s"), ("logical_decoding_work_mem", "32MB")]);
        for (name, value) in &expected {
            assert_eq!(&one(&mut walsender, &format!("SHOW {name}")).await, value, "{name}");
        }
        server.sql("ALTER ROLE sluice RESET ALL");
    }
}

#[tokio::test]
async fn a_walsender_takes_commands_and_streams() {
    let server = scram(18);
    let mut options = options(server);
    options.tls = tls(Verify::Full, "ca.pem");
    let mut connection = Connection::open(&options, Kind::Replication).await.unwrap();
    let system = connection.simple_query("IDENTIFY_SYSTEM").await.unwrap();
    assert_eq!(system[0][3].as_deref(), Some("postgres"));
    let missing =
        "START_REPLICATION SLOT none LOGICAL 0/0 (proto_version '1', publication_names 'p')";
    let error = connection.start_copy_both(missing).await.unwrap_err();
    assert_halts(&error, Exit::Gap, "42704");
    // An error does not end the connection.
    let make = "CREATE_REPLICATION_SLOT login TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')";
    let rows = connection.simple_query(make).await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("login"));
    let other = Connection::open(&options, Kind::Replication).await;
    let start = missing.replace("none", "login");
    let error = other.unwrap().start_copy_both(&start).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    assert_eq!(error.server().unwrap().sqlstate, "55006");
    connection.start_copy_both(&start).await.unwrap();
    let (mut stream, mut received) = connection.into_parts();
    while received.len() < 6 {
        stream.read_buf(&mut received).await.unwrap();
    }
    assert_eq!((received[0], received[5]), (b'd', b'k'), "a keepalive comes first");
}

#[tokio::test]
async fn notices_are_kept_and_the_last_result_counts() {
    let mut connection = Connection::open(&options(scram(18)), Kind::Sql).await.unwrap();
    let two = "SELECT 1 UNION SELECT 2; DO $$ BEGIN RAISE WARNING 'mind'; END $$; SELECT NULL, 'a'";
    let rows = connection.simple_query(two).await.unwrap();
    assert_eq!(rows, [vec![None, Some("a".to_owned())]]);
    let notices = connection.take_notices();
    assert_eq!((notices.len(), notices[0].message.as_str()), (1, "mind"));
    assert!(connection.take_notices().is_empty());
    let error = connection.simple_query("SELECT 'secret'::int").await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert_eq!(one(&mut connection, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_wrong_password_or_role_or_database_halts() {
    let mut options = options(scram(18));
    options.password = Some(SecretSource::Text(Secret::new("wrong".into())));
    assert_halts(&refusal(&options).await, Exit::Permission, "28P01");
    options.password = None;
    assert_halts(&refusal(&options).await, Exit::Permission, "none is configured");
    options.password = Some(SecretSource::File("/nowhere/secret".into()));
    assert_halts(&refusal(&options).await, Exit::Config, "/nowhere/secret");
    options.password = Some(SecretSource::Text(Secret::new("sluice-secret".into())));
    options.database = "nowhere".into();
    assert_halts(&refusal(&options).await, Exit::Unavailable, "3D000");
    options.user = "nobody".into();
    assert_halts(&refusal(&options).await, Exit::Permission, "28P01");
    options.extra = Some("-c no_such_setting=1".into());
    options.user = "sluice".into();
    options.database = "postgres".into();
    assert_halts(&refusal(&options).await, Exit::Config, "no_such_setting");
}

#[tokio::test]
async fn the_certificate_is_checked_as_far_as_asked() {
    let mut options = options(scram(18));
    for (verify, ca) in
        [(Verify::Full, "ca.pem"), (Verify::Ca, "ca.pem"), (Verify::Nothing, "other-ca.pem")]
    {
        options.tls = tls(verify, ca);
        Connection::open(&options, Kind::Sql).await.unwrap();
    }
    for verify in [Verify::Full, Verify::Ca] {
        options.tls = tls(verify, "other-ca.pem");
        assert_halts(&refusal(&options).await, Exit::Permission, "UnknownIssuer");
    }
    options.tls = Some(TlsOptions { verify: Verify::Full, ca: None, client: None });
    let error = refusal(&options).await;
    assert_ne!(error.disposition(), Disposition::Retry, "{error}"); // by the system's CAs, or there are none

    let Host::Tcp(_, port) = options.hosts.remove(0) else { panic!("that is no TCP") };
    options.hosts.push(Host::Tcp("localhost".into(), port));
    options.tls = tls(Verify::Full, "ca.pem");
    Connection::open(&options, Kind::Sql).await.unwrap();
    // Neither an address nor a name of the certificate's.
    for host in ["127.0.0.2", "127.1"] {
        options.hosts = vec![Host::Tcp(host.into(), port)];
        options.tls = tls(Verify::Full, "ca.pem");
        assert_halts(&refusal(&options).await, Exit::Permission, "ertificate");
        options.tls = tls(Verify::Ca, "ca.pem");
        options.channel_binding = ChannelBinding::Require;
        Connection::open(&options, Kind::Sql).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let mut options = options(scram(18));
    options.tls = tls(Verify::Full, "nowhere.pem");
    assert_halts(&refusal(&options).await, Exit::Config, "nowhere.pem");
    let with = |chain: &str, key: &str| {
        let client = Some((certificate(chain), certificate(key)));
        Some(TlsOptions { verify: Verify::Nothing, ca: None, client })
    };
    options.tls = with("client.pem", "server.key");
    assert_halts(&refusal(&options).await, Exit::Config, "does not fit the certificate");
    options.tls = with("client.pem", "client.pem");
    assert_halts(&refusal(&options).await, Exit::Config, "it holds no private key");
    options.tls = with("client.key", "client.key");
    assert_halts(&refusal(&options).await, Exit::Config, "it holds no certificate");
    // As OpenSSL writes a key with a passphrase, today and before, and one that is no PEM.
    let folder = Folder::new("keys");
    for (name, how, words) in [
        (
            "locked.key",
            "pkcs8 -topk8 -passout pass:secret",
            "its key is encrypted; store it without",
        ),
        ("old.key", "ec -aes256 -passout pass:secret", "its key is encrypted; store it without"),
        ("der.key", "pkcs8 -topk8 -nocrypt -outform DER", "it is not PEM: it looks like DER"),
    ] {
        let key = folder.0.join(name);
        openssl(how, &[Path::new("-in"), &certificate("client.key"), Path::new("-out"), &key]);
        let client = Some((certificate("client.pem"), key));
        options.tls = Some(TlsOptions { verify: Verify::Nothing, ca: None, client });
        let error = refusal(&options).await;
        assert_halts(&error, Exit::Config, words);
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// SCRAM is bound to a hash of the server's certificate: the hash that signed it (RFC 5929).
#[tokio::test]
async fn channel_binding_holds_whatever_hash_signed_the_certificate() {
    let server = Postgres::start(17, PORTS.postgres(7), &["auth=scram", "tls=1"]);
    let data = PathBuf::from(server.ctl("log")).parent().unwrap().to_owned();
    let folder = Folder::new("hashes");
    let path = |name: &str| folder.0.join(name);
    for (name, key) in [
        ("rsa-sha256", "rsa:2048 -sha256"),
        ("rsa-sha384", "rsa:2048 -sha384"),
        ("rsa-sha512", "rsa:3072 -sha512"),
        ("ecdsa-sha256", "ec -pkeyopt ec_paramgen_curve:P-256 -sha256"),
        ("ecdsa-sha384", "ec -pkeyopt ec_paramgen_curve:P-384 -sha384"),
    ] {
        let (pem, secret) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        let make = format!(
            "req -new -x509 -days 2 -nodes -subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -newkey {key}"
        );
        openssl(&make, &[Path::new("-out"), &pem, Path::new("-keyout"), &secret]);
        // Into the files that are there, which keep their owner and mode.
        std::fs::write(data.join("server.key"), std::fs::read(&secret).unwrap()).unwrap();
        std::fs::write(data.join("server.pem"), std::fs::read(&pem).unwrap()).unwrap();
        server.sql("select pg_reload_conf()");
        let mut options = options(&server);
        options.tls = Some(TlsOptions { verify: Verify::Full, ca: Some(pem), client: None });
        options.channel_binding = ChannelBinding::Require;
        // The server takes a moment; until then its certificate is another one.
        let begin = Instant::now();
        let mut connection = loop {
            match Connection::open(&options, Kind::Replication).await {
                Ok(connection) => break connection,
                Err(Error::Untrusted(_)) if begin.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{name}: {}", chain(&error)),
            }
        };
        assert!(is_encrypted(&mut connection).await, "{name}");
        let client = sql(&options, &options.hosts[0]).await.unwrap();
        client.query_one("SELECT 1", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_by_certificate_needs_the_right_one() {
    let server = Postgres::start(17, PORTS.postgres(2), &["auth=cert"]);
    let mut options = options(&server);
    options.password = None;
    options.tls = tls(Verify::Full, "ca.pem");
    assert_halts(&refusal(&options).await, Exit::Permission, "28000");
    let client = Some((certificate("client.pem"), certificate("client.key")));
    options.tls = Some(TlsOptions { client, ..options.tls.unwrap() });
    let mut connection = Connection::open(&options, Kind::Replication).await.unwrap();
    assert!(is_encrypted(&mut connection).await);
    options.channel_binding = ChannelBinding::Require;
    assert_halts(&refusal(&options).await, Exit::Permission, "channel binding is required");
    // Signed by its own key, which the server does not trust.
    let client = Some((certificate("other-ca.pem"), certificate("other-ca.key")));
    options.tls = Some(TlsOptions { client, ..options.tls.unwrap() });
    options.channel_binding = ChannelBinding::Prefer;
    let error = Connection::open(&options, Kind::Sql).await.unwrap_err();
    assert_halts(&error, Exit::Permission, "TLS with");
    options.tls = None;
    assert_halts(&refusal(&options).await, Exit::Permission, "28000");
}

#[tokio::test]
async fn md5_and_cleartext_only_if_allowed() {
    for (at, method) in [(3, "md5"), (4, "password")] {
        let server = Postgres::start(17, PORTS.postgres(at), &[&format!("auth={method}")]);
        let mut options = options(&server);
        assert_halts(&refusal(&options).await, Exit::Permission, "is not allowed");
        options.allow_md5 = method == "md5";
        options.allow_cleartext = method == "password";
        let mut connection = Connection::open(&options, Kind::Replication).await.unwrap();
        assert_eq!(one(&mut connection, "SELECT current_user").await, "sluice");
        let client = sql(&options, &options.hosts[0]).await.unwrap();
        client.query_one("SELECT 1", &[]).await.unwrap();
        options.password = Some(SecretSource::Text(Secret::new("wrong".into())));
        assert_halts(&refusal(&options).await, Exit::Permission, "28P01");
        // And this one has no TLS.
        options.tls = tls(Verify::Full, "ca.pem");
        assert_halts(&refusal(&options).await, Exit::Unavailable, "does not offer TLS");
    }
}

#[tokio::test]
async fn a_unix_socket_needs_no_tls() {
    let server = scram(18);
    let folder = PathBuf::from(server.ctl("log")).parent().unwrap().to_owned();
    let mut options = at(Host::Unix(folder, server.port()));
    options.user = "postgres".into();
    options.password = None;
    options.tls = tls(Verify::Full, "ca.pem");
    let mut connection = Connection::open(&options, Kind::Replication).await.unwrap();
    assert!(!is_encrypted(&mut connection).await);
    let client = sql(&options, connection.host()).await.unwrap();
    let row = client.query_one("SELECT inet_server_addr() IS NULL", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    options.hosts = vec![Host::Unix("/nowhere".into(), 1)];
    assert_eq!(refusal(&options).await.disposition(), Disposition::Retry);
}

#[tokio::test]
async fn the_password_file_is_asked_at_every_login() {
    let server = scram(18);
    let mut options = options(server);
    options.password = None;
    let path = std::env::temp_dir().join(format!("pg_login-{}", std::process::id()));
    let write = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    options.passfile = Some(path.clone());
    write(&format!("127.0.0.1:{}:postgres:sluice:wrong\n", server.port()), 0o600);
    assert_halts(&refusal(&options).await, Exit::Permission, "28P01");
    write("#\nother:*:*:*:wrong\n*:*:postgres:sluice:sluice\\-secret\n", 0o600);
    Connection::open(&options, Kind::Replication).await.unwrap();
    write("*:*:*:*:sluice-secret\n", 0o644);
    assert_halts(&refusal(&options).await, Exit::Config, "others may read it");
    std::fs::remove_file(&path).unwrap();
    assert_halts(&refusal(&options).await, Exit::Permission, "none is configured");
}

#[tokio::test]
async fn what_may_heal_is_waited_for() {
    let mut options = at(Host::Tcp("no-such-host.invalid".into(), 5432));
    assert_eq!(refusal(&options).await.disposition(), Disposition::Retry);

    // A server that is silent.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    options.hosts = vec![Host::Tcp("127.0.0.1".into(), silent.local_addr().unwrap().port())];
    options.tcp.connect_timeout = Duration::from_millis(200);
    let begin = Instant::now();
    let error = refusal(&options).await;
    assert!(error.to_string().contains("did not answer within"), "{error}");
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(begin.elapsed() < Duration::from_secs(5));

    // And one that hangs up.
    options.tcp.connect_timeout = Duration::from_secs(10);
    tokio::spawn(async move { while silent.accept().await.is_ok() {} });
    assert_eq!(refusal(&options).await.disposition(), Disposition::Retry);
}

#[tokio::test]
async fn a_server_that_is_no_postgresql_halts() {
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-x\r\n", "\0\0\0\0\0\0\0\0\0\0"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = at(Host::Tcp("127.0.0.1".into(), listener.local_addr().unwrap().port()));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(greeting.as_bytes()).await.unwrap();
                // Read what comes, so that closing does not reset what was said.
                tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        });
        let words = "does not speak PostgreSQL's protocol";
        assert_halts(&refusal(&options).await, Exit::Unavailable, words);
        options.tls = tls(Verify::Nothing, "ca.pem");
        // "S" is also how a server agrees to TLS.
        let error = refusal(&options).await;
        assert_ne!(error.disposition(), Disposition::Retry, "{error}");
    }
}

#[tokio::test]
async fn the_first_host_that_will_do_is_taken() {
    let primary = Postgres::start(17, PORTS.postgres(5), &[]);
    let standby = Postgres::standby(&primary, PORTS.postgres(6), &[]);
    let host = |server: &Postgres| Host::Tcp("127.0.0.1".into(), server.port());
    let away = Host::Tcp("127.0.0.1".into(), PORTS.postgres(9));
    let mut options = at(away.clone());
    options.user = "postgres".into();
    options.password = None;
    options.hosts = vec![away.clone(), host(&standby), host(&primary)];
    for (target, expected) in [
        (TargetSession::Any, &standby),
        (TargetSession::ReadWrite, &primary),
        (TargetSession::Primary, &primary),
        (TargetSession::ReadOnly, &standby),
        (TargetSession::Standby, &standby),
        (TargetSession::PreferStandby, &standby),
    ] {
        options.target = target;
        for kind in [Kind::Replication, Kind::Sql] {
            let connection = Connection::open(&options, kind).await.unwrap();
            assert_eq!(connection.host(), &host(expected), "{target:?}");
        }
    }
    options.hosts = vec![away.clone(), host(&primary)];
    let connection = Connection::open(&options, Kind::Sql).await.unwrap();
    assert_eq!(connection.host(), &host(&primary), "any, as no standby is there");
    options.target = TargetSession::Standby;
    let error = Connection::open(&options, Kind::Sql).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry);
    let words = format!("could not connect to {away}");
    assert!(error.to_string().contains(&words), "{error}");
    assert!(error.to_string().contains("is not a standby"), "{error}");
}

#[tokio::test]
async fn a_dropped_sql_client_is_gone_from_the_server() {
    let server = scram(18);
    let mut options = options(server);
    options.application_name = "dropped".into();
    let client = sql(&options, &options.hosts[0]).await.unwrap();
    let error = client.query_one("SELECT 1/0", &[]).await.unwrap_err();
    assert_eq!(client.judge(error).server().unwrap().sqlstate, "22012");
    let count =
        || server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dropped'");
    assert_eq!(count(), "1");
    drop(client);
    tokio::task::yield_now().await;
    eventually(Duration::from_secs(5), "the backend is gone", || count() == "0");
}

#[tokio::test]
async fn a_gathering_stream_loses_nothing_and_is_never_late() {
    const ROWS: usize = 200_000;
    for tls in [None, tls(Verify::Full, "ca.pem")] {
        let mut options = options(scram(18));
        options.tls = tls;
        let connection = Connection::open(&options, Kind::Sql).await.unwrap();
        let (mut stream, _) = connection.into_parts();
        stream.set_low_watermark(12 * 1024).unwrap();
        let flood = format!("SELECT repeat('x', 100) FROM generate_series(1, {ROWS})");
        for _ in 0..3 {
            let bytes = answer(&mut stream, &flood).await;
            assert!(bytes > ROWS * 100, "{bytes}");
            for _ in 0..10 {
                let begin = Instant::now();
                answer(&mut stream, "SELECT 1").await;
                assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
            }
        }
    }
}

/// Bytes of the answer to a statement, up to and with its `ReadyForQuery`.
async fn answer(stream: &mut Stream, sql: &str) -> usize {
    let mut query = vec![b'Q'];
    query.extend(u32::try_from(sql.len() + 5).unwrap().to_be_bytes());
    query.extend(sql.as_bytes());
    query.push(0);
    stream.write_all(&query).await.unwrap();
    let mut received = Vec::with_capacity(1 << 20);
    while !received.ends_with(b"Z\0\0\0\x05I") {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0, "the server hung up");
    }
    received.len()
}

#[tokio::test]
async fn tls_at_once_is_refused_where_postgresql_asks_first() {
    // PostgreSQL before 17 knows only SSLRequest: it sees garbage, and hangs up.
    let server = scram(14);
    let options = options(server);
    let tls = tls(Verify::Full, "ca.pem");
    let result = net::connect("127.0.0.1", server.port(), &options.tcp, tls.as_ref()).await;
    assert!(result.is_err());
}

/// As PostgreSQL's manual makes it: OpenSSL marks it as a CA, which webpki takes for no server.
#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_it_is_named() {
    let folder = Folder::new("tls");
    let path = |name: &str| folder.0.join(name);
    for name in ["named", "other"] {
        let make = "req -new -x509 -days 2 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
                    -subj /CN=localhost -addext subjectAltName=DNS:localhost";
        let (pem, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        openssl(make, &[Path::new("-out"), &pem, Path::new("-keyout"), &key]);
    }
    let port = PORTS.proxy(0);
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-cert".as_ref(), path("named.pem").as_os_str()])
        .args(["-key".as_ref(), path("named.key").as_os_str()])
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually(Duration::from_secs(10), "openssl listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let tcp = at(Host::Tcp(String::new(), 0)).tcp;
    let mut answers = Vec::new();
    for (host, verify, ca) in [
        ("localhost", Verify::Full, "named.pem"),
        ("127.0.0.1", Verify::Ca, "named.pem"),
        ("127.0.0.1", Verify::Full, "named.pem"), // its name is localhost only
        ("localhost", Verify::Full, "other.pem"),
    ] {
        let tls = TlsOptions { verify, ca: Some(path(ca)), client: None };
        let answer = net::connect(host, port, &tcp, Some(&tls)).await;
        answers.push(answer.map(drop).map_err(|error| error.disposition()));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let refused = Err(Disposition::Halt(Exit::Permission));
    assert_eq!(answers, [Ok(()), Ok(()), refused, refused]);
}
