//! Clients of a server behind a proxy that speaks TLS with the certificate of an authority of our own.

use std::process::Output;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::{Server, Site, tidings};

/// A proxy before `server`; its address.
async fn proxy(server: &Server, certificates: &Certificates) -> String {
    let acceptor = TlsAcceptor::from(Arc::new(certificates.server()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let behind = server.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut front) = acceptor.accept(stream).await else { return };
                let mut back = TcpStream::connect(behind).await.expect("the server is there");
                drop(tokio::io::copy_bidirectional(&mut front, &mut back).await);
            });
        }
    });
    format!("https://{address}")
}

async fn output(args: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::from(tidings(args));
    let Output { status, stdout, stderr } = command.kill_on_drop(true).output().await.expect("it runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test]
async fn clients_speak_https_with_an_authority_of_ones_own() {
    let site = Site::new("[suites.good]\ncommand = [\"sh\", \"-c\", \"echo 1..1; echo ok 1 - a\"]\n");
    let server = site.start();
    let certificates = Certificates::of("IP:127.0.0.1");
    let url = proxy(&server, &certificates).await;
    let ca = certificates.path("ca.pem").display().to_string();
    let script = "echo 1..2; echo ok 1 - a; echo not ok 2 - b; exit 3";
    let run = ["run", "--server", &url, "--test-id", "r", "--ca", &ca, "--", "sh", "-c", script];
    let (code, said) = output(&run).await;
    assert_eq!(code, Some(3), "{said}");
    let test: Value = server.http.get("/api/v1/tests/r").await.expect("it was told");
    assert_eq!((&test["state"], &test["counts"]["failed"]), (&"failed".into(), &1.into()), "{test}");
    // By HTTP and by a socket.
    let submit = ["submit", "command", "--wait", "--server", &url, "--test-id", "s", "--ca", &ca];
    let (code, said) = output(&[&submit[..], &["--config", "{\"suite\":\"good\"}"]].concat()).await;
    assert!(code == Some(0) && said.contains("s passed"), "{said}");
    // Nobody would vouch for anything there.
    let plain = url.replace("https://", "");
    let (code, said) = output(&["submit", "command", "--server", &plain, "--ca", &ca]).await;
    assert!(code == Some(1) && said.contains("is for https:// only"), "{code:?}: {said}");
    // Whoever signed it is not known here.
    let (code, said) = output(&submit[..7]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not to be trusted") && said.contains("`--ca FILE`"), "{said}");
    let (code, said) = output(&["run", "--server", &url, "--test-id", "u", "--", "sh", "-c", "exit 4"]).await;
    assert!(code == Some(4) && said.contains("is not to be trusted"), "{said}");
    // A file that is none of certificates is a mistake of usage.
    let none = site.path("tidings.toml").display().to_string();
    let (code, said) = output(&["cancel", "job_1", "--server", &url, "--ca", &none]).await;
    assert!(code == Some(2) && said.contains("expected certificates as PEM"), "{said}");
    let plain = server.url.replace("http://", "https://");
    let (code, said) = output(&["cancel", "job_1", "--server", &plain, "--ca", &ca]).await;
    assert!(code == Some(1) && said.contains("cannot reach https://"), "{said}");
}
