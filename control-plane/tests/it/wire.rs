use crate::support::{ACCOUNT, PASSWORD, framed, http, small};
use muster_proto::command::v1 as pb;
use prost::Message as _;

/// Undoes chunked transfer coding.
fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).expect("hex"), 16).expect("size");
        whole.extend(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    whole
}

#[tokio::test]
async fn a_browser_speaks_grpc_web_over_http_1() {
    let fixture = small().await;
    let message = pb::SignInRequest {
        account: ACCOUNT.into(),
        password: PASSWORD.into(),
    };
    let head = "POST /muster.command.v1.SessionService/SignIn HTTP/1.1\r\n\
                Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n";
    let (head, body) = http(fixture.control_plane.addr(), head, &framed(&message)).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("application/grpc-web"), "{head}");
    let body = if head.contains("transfer-encoding: chunked") {
        dechunked(&body)
    } else {
        body
    };
    assert_eq!(body[0], 0, "a message frame");
    let length = u32::from_be_bytes(body[1..5].try_into().expect("length")) as usize;
    let answer = pb::SignInResponse::decode(&body[5..5 + length]).expect("an answer");
    assert_eq!(answer.account.expect("account").name, ACCOUNT);
    let trailers = &body[5 + length..];
    assert_eq!(trailers[0], 0x80, "a trailer frame");
    assert!(String::from_utf8_lossy(&trailers[5..]).contains("grpc-status:0"));
}

#[tokio::test]
async fn the_console_and_the_health_check_answer_on_the_same_port() {
    let fixture = small().await;
    let addr = fixture.control_plane.addr();
    let (head, body) = http(addr, "GET /healthz HTTP/1.1\r\n", b"").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, b"ok\n");
    for page in ["/", "/join"] {
        let (head, body) = http(addr, &format!("GET {page} HTTP/1.1\r\n"), b"").await;
        assert!(head.contains("text/html"), "{head}");
        assert!(head.contains("content-security-policy"), "{head}");
        assert!(
            String::from_utf8_lossy(&body)
                .to_lowercase()
                .contains("<!doctype html>")
        );
    }
    let (head, _) = http(addr, "GET /nothing-here HTTP/1.1\r\n", b"").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
}

#[tokio::test]
async fn an_import_larger_than_the_limit_is_refused() {
    let fixture = small().await;
    let person = fixture.person().await;
    let over = person.import(&vec![b'a'; 9 << 20]).await.expect_err("refused");
    assert!(
        matches!(
            over.code(),
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted
        ),
        "{over}"
    );
}
