//! HTTP/3 (RFC 9114): one QUIC socket a listener and node, whose connections are dealt out to the workers; each request
//! goes the way of all others, `exchange::handle`. The only place in this crate that names quinn.

mod body;
mod check;
mod doorkeeper;
mod endpoint;
mod request;
mod screen;
mod sections;
mod session;
mod setup;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use h3::{error::Code, server::RequestResolver};
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use hyper::rt::Executor;
pub(crate) use quinn::Incoming;
use quinn::{VarInt, crypto::rustls::HandshakeData};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use self::screen::Screened;
pub(crate) use self::{
    body::Body,
    endpoint::{Opened, bind, listen},
    setup::{Quic, TokenKey},
};
use crate::{
    connection::{Conn, H2_STREAMS_MAX, Registered, header_list_bytes_max},
    exchange,
    held::Held,
    interim::{Outbox, Way},
    pace::Streams,
    received::Received,
    reception::Open,
    record::Answer,
    worker::Worker,
};

/// Of QUIC (RFC 9000 section 15).
const VERSION_1: u32 = 1;
/// Exchanges of a connection, those included that the client has given up and whose upstream is still waited for.
const EXCHANGES_MAX: usize = 2 * H2_STREAMS_MAX as usize;
/// How long a connection may take to hear that it is over.
const FAREWELL: Duration = Duration::from_millis(500);

type Connection = h3::server::Connection<Screened, Held>;
type Resolver = RequestResolver<Screened, Held>;
type SendStream = h3::server::RequestStream<h3_quinn::SendStream<Held>, Held>;
type RecvStream = h3::server::RequestStream<request::Received, Held>;

/// Serves one connection, whose client has shown that it hears us, to its end.
pub(crate) async fn serve(worker: Rc<Worker>, incoming: quinn::Incoming, listener: Arc<Open>) {
    let reception = listener.reception.load_full();
    let peer = incoming.remote_address();
    let Some(quic) = reception.tls().and_then(|setup| setup.quic.clone()) else { return incoming.refuse() };
    let limits = &worker.shared.settings.limits;
    let Some(_place) = worker.shared.per_ip.enter(peer.ip().to_canonical(), limits.connections_per_ip_max) else {
        worker.metrics.reject("too_many_connections");
        return incoming.refuse();
    };
    let handshake = limits.tls_handshake;
    let Ok(connecting) = incoming.accept_with(quic.0) else { return worker.metrics.reject("tls_handshake") };
    let Ok(Ok(quic)) = timeout(handshake, connecting).await else {
        return worker.metrics.reject("tls_handshake");
    };
    let conn = Rc::new(Conn::new(worker, peer, listener, reception));
    let _registered = Registered::new(conn.clone());
    conn.enter_multiplexed();
    if !introduced(&conn, &quic) {
        // What TLS would have said in a handshake that had looked (RFC 9001 4.8): bad_certificate.
        quic.close(VarInt::from_u32(0x100 + 42), b"");
        return conn.worker.metrics.reject("tls_handshake");
    }
    conn.until_closed(pin!(requests(&conn, quic.clone()))).await;
    quic.close(VarInt::from_u64(Code::H3_NO_ERROR.value()).expect("the code is small"), b"");
    let _ = timeout(FAREWELL, quic.closed()).await;
}

/// Who has come, as far as the handshake says. False: nobody who may.
fn introduced(conn: &Conn, quic: &quinn::Connection) -> bool {
    let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    if let Some(name) = data.and_then(|data| data.server_name) {
        let _ = conn.sni.set(name.to_ascii_lowercase());
    }
    let chain = quic.peer_identity().and_then(|it| it.downcast::<Vec<CertificateDer<'static>>>().ok());
    let takes = conn.reception.tls().is_some_and(|setup| setup.takes(chain.as_ref().map(|chain| &chain[..])));
    if let Some(chain) = chain {
        let _ = conn.client_chain.set((*chain).into());
    }
    takes
}

enum Next {
    Request(Box<Resolver>),
    Drain,
    End,
}

async fn requests(conn: &Rc<Conn>, quic: quinn::Connection) {
    let mut builder = h3::server::builder();
    builder.max_field_section_size(u64::from(header_list_bytes_max(&conn.worker.shared.settings.limits)));
    let Ok(mut h3) = builder.build(Screened::new(quic.clone())).await else { return };
    let mut told = false;
    loop {
        match next(conn, &mut h3, !told).await {
            Next::Request(_) if conn.in_flight() >= EXCHANGES_MAX => {
                conn.worker.metrics.reject("overloaded");
                let code = VarInt::from_u64(Code::H3_EXCESSIVE_LOAD.value()).expect("the code is small");
                return quic.close(code, b"");
            }
            Next::Request(resolver) => resolve(conn.clone(), quic.clone(), *resolver),
            Next::Drain => {
                told = true;
                // GOAWAY: what comes behind the last request that was seen is to be sent elsewhere.
                if h3.shutdown(0).await.is_err() {
                    return;
                }
            }
            Next::End => return,
        }
    }
}

async fn next(conn: &Conn, h3: &mut Connection, may_drain: bool) -> Next {
    let mut accept = pin!(h3.accept());
    poll_fn(|cx| {
        if may_drain && conn.is_draining() {
            return Poll::Ready(Next::Drain);
        }
        accept.as_mut().poll(cx).map(|accepted| match accepted {
            Ok(Some(resolver)) => Next::Request(Box::new(resolver)),
            Ok(None) | Err(_) => Next::End,
        })
    })
    .await
}

/// Waits for the head; then it is an exchange, which its worker's clock looks at.
fn resolve(conn: Rc<Conn>, quic: quinn::Connection, resolver: Resolver) {
    tokio::task::spawn_local(async move {
        let limit = conn.worker.shared.settings.limits.header_read;
        let resolved = match timeout(limit, resolver.resolve_request()).await {
            Ok(Ok(resolved)) => resolved,
            // The library has answered what it refuses, and resets what it drops.
            Ok(Err(_)) => return conn.worker.metrics.reject("malformed_request"),
            Err(_) => return conn.worker.metrics.reject("slow_header"),
        };
        let (request, stream) = resolved;
        let (mut send, mut recv) = stream.split();
        let Some(left) = check::head(&request) else {
            conn.worker.metrics.reject("malformed_request");
            send.stop_stream(Code::H3_MESSAGE_ERROR);
            return recv.stop_sending(Code::H3_MESSAGE_ERROR);
        };
        let exchange = exchange(conn.clone(), request, send, recv, left);
        Streams(conn).execute(async move {
            tokio::select! {
                biased;
                () = exchange => (),
                // Nobody waits for the answer any more.
                _ = quic.closed() => (),
            }
        });
    });
}

/// `left`: the length that the head declares.
async fn exchange(conn: Rc<Conn>, request: Request<()>, mut send: SendStream, recv: RecvStream, left: Option<u64>) {
    let body = Received::from(Body::begin(recv, left).await);
    let outbox = Rc::<Outbox>::default();
    let way = Some(Way::Stream(outbox.clone()));
    let response = {
        let mut interim = pin!(send_interim(&mut send, &outbox));
        let mut handling = pin!(exchange::handle(conn.clone(), request.map(|()| body), way));
        poll_fn(|cx| {
            let handled = handling.as_mut().poll(cx);
            if handled.is_pending() {
                let _ = interim.as_mut().poll(cx);
            }
            handled
        })
        .await
    };
    let response = match response {
        Ok(response) => response,
        Err(never) => match never {},
    };
    answer(send, response).await;
}

/// What comes before the answer, as long as somebody waits for more. That it cannot be sent, the answer will find out.
async fn send_interim(send: &mut SendStream, outbox: &Outbox) {
    loop {
        let mut head = outbox.next().await;
        check::for_http3(head.headers_mut());
        let _ = send.send_response(head).await;
        outbox.is_sent();
    }
}

/// What an answer without a date gets (RFC 9110 6.6.1); over HTTP/1 and 2 the library does it.
fn date() -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())).expect("a date is ASCII")
}

/// A client that has given up this one answer is known by the first thing that cannot be sent; the record is closed when
/// the answer is dropped.
async fn answer(mut send: SendStream, response: Response<Answer>) {
    let (mut head, body) = response.into_parts();
    check::for_http3(&mut head.headers);
    head.headers.entry(header::DATE).or_insert_with(date);
    let mut body = pin!(body);
    if send.send_response(Response::from_parts(head, ())).await.is_err() {
        return;
    }
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let sent = match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => send.send_data(data).await,
            Ok(Err(frame)) => match frame.into_trailers() {
                Ok(trailers) => send.send_trailers(trailers).await,
                Err(_) => continue,
            },
            // A part is missing, and the client must know.
            Err(_) => return send.stop_stream(Code::H3_INTERNAL_ERROR),
        };
        if sent.is_err() {
            return;
        }
    }
    // It fails where the client has left, which nobody needs to hear.
    let _ = send.finish().await;
}
