//! Programs: uploaded, listed, run, removed.

use sha2::{Digest, Sha256};

use super::cluster::{Answer, Cluster, PROGRAM_BYTES_MAX, options};
use flott_schema::job::ProgramDigest;

use crate::rest::Options;

const BOUNDARY: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

fn multipart(field: &str, file: Option<&str>, content: &[u8]) -> Vec<u8> {
    let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
    let mut body =
        format!("--XX\r\nContent-Disposition: form-data; name=\"{field}\"{file}\r\n\r\n").into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    body
}

async fn upload(cluster: &Cluster, body: &[u8]) -> Answer {
    cluster.send("POST", "/v1/jars/upload", &[BOUNDARY], body).await
}

#[tokio::test]
async fn an_uploaded_program_is_listed_run_and_removed() {
    let mut cluster = Cluster::start(options()).await;
    let content = vec![7; 100_000];
    let uploaded = upload(&cluster, &multipart("jarfile", Some("/home/me/word_count"), &content)).await;
    assert_eq!(uploaded.status, 200, "{uploaded:?}");
    let digest: [u8; 32] = Sha256::digest(&content).into();
    let id = format!("{}_word_count", ProgramDigest(digest));
    assert_eq!(cluster.programs.list().unwrap()[0].size_bytes, 100_000);
    assert_eq!(uploaded.json()["filename"], format!("/programs/{id}"));
    assert_eq!(uploaded.json()["status"], "success");

    let listed = cluster.call("GET", "/jars").await.json();
    let files = listed["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["id"] == id && file["name"] == "word_count"), "{listed}");

    let alone = cluster.call("POST", &format!("/jars/{id}/run")).await;
    assert_eq!(alone.status, 503, "{alone:?}");
    cluster.worker(1, 2).await;
    let body = br#"{"entryClass":"x","programArgsList":["a"],"parallelism":3,"unknown":1}"#;
    let json = [("content-type", "application/json")];
    let ran = cluster.send("POST", &format!("/jars/{id}/run"), &json, body).await;
    assert_eq!(ran.status, 200, "{ran:?}");
    assert_eq!(ran.json()["jobid"], format!("{:032x}", 3));
    let ran = cluster.call("POST", &format!("/jars/{id}/run?parallelism=4&programArg=a,b")).await;
    assert_eq!(ran.json()["jobid"], format!("{:032x}", 4));
    let failed = cluster.call("POST", &format!("/jars/{id}/run?programArg=fail")).await;
    assert_eq!(failed.status, 400);
    assert_eq!(failed.error(), "the program ended with status 1");
    let malformed = cluster.send("POST", &format!("/jars/{id}/run"), &json, b"{\"parallelism\":\"x\"").await;
    assert_eq!(malformed.status, 400, "{malformed:?}");
    let planned = cluster.call("GET", &format!("/jars/{id}/plan")).await;
    assert_eq!(planned.json()["plan"]["name"], "planned");

    cluster.submit(1, 2, flott_schema::job::RestartStrategy::None).await;
    let used = cluster.call("DELETE", &format!("/jars/{}_words", super::cluster::PROGRAM)).await;
    assert_eq!(used.status, 409, "{used:?}");
    assert_eq!(cluster.call("DELETE", &format!("/jars/{id}")).await.status, 200);
    assert_eq!(cluster.call("DELETE", &format!("/jars/{id}")).await.status, 400);
    assert_eq!(cluster.call("POST", &format!("/jars/{id}/run")).await.status, 404);
    assert_eq!(cluster.call("POST", "/jars/no-such-jar/run").await.status, 404);
}

#[tokio::test]
async fn uploads_that_are_none_store_nothing() {
    let cluster = Cluster::start(options()).await;
    let cases: [(&str, Vec<u8>, u16); 5] = [
        ("nothing", b"--XX--\r\n".to_vec(), 400),
        ("another field", multipart("other", None, b"x"), 400),
        ("no name", multipart("jarfile", Some(".."), b"x"), 400),
        ("cut", multipart("jarfile", Some("a"), &[1; 5_000])[..2_000].to_vec(), 400),
        ("too large", multipart("jarfile", Some("a"), &vec![1; PROGRAM_BYTES_MAX as usize + 1]), 413),
    ];
    for (name, body, status) in cases {
        let answer = upload(&cluster, &body).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(!answer.error().is_empty());
        assert!(cluster.programs.list().unwrap().is_empty(), "{name}");
    }
    let too_large = multipart("jarfile", Some("a"), &vec![1; PROGRAM_BYTES_MAX as usize + 1]);
    let answer = upload(&cluster, &too_large).await;
    assert!(answer.error().contains("coordinator.programs.max-size"), "{}", answer.error());
    let plain = cluster.send("POST", "/jars/upload", &[("content-type", "text/plain")], b"x").await;
    assert_eq!(plain.status, 400, "{plain:?}");
    let off = Cluster::start(Options { submit_enabled: false, ..options() }).await;
    assert_eq!(off.call("GET", "/jars").await.status, 503);
}

#[tokio::test]
async fn a_program_may_be_larger_than_other_bodies() {
    let cluster = Cluster::start(Options { content_length_max_bytes: 1_000, ..options() }).await;
    let uploaded = upload(&cluster, &multipart("jarfile", Some("large"), &vec![1; 200_000])).await;
    assert_eq!(uploaded.status, 200, "{uploaded:?}");
    let id = uploaded.json()["filename"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let body = format!("{{\"programArgs\": \"{}\"}}", "x".repeat(2_000));
    let json = [("content-type", "application/json")];
    let ran = cluster.send("POST", &format!("/jars/{id}/run"), &json, body.as_bytes()).await;
    assert_eq!(ran.status, 413, "{ran:?}");
    assert!(ran.error().contains("rest.server.max-content-length"), "{}", ran.error());
}
