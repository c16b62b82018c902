//! Small upstreams in the test process: one answers 200 with its name, one begins to speak and falls silent.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub struct Origin {
    pub address: SocketAddr,
    /// By `start`: how many requests it has answered.
    pub asked: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Origin {
    pub async fn start(name: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::<AtomicUsize>::default();
        let counted = asked.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = counted.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    counted.fetch_add(1, SeqCst);
                    async move {
                        // A body that breaks off ends its connection with it.
                        let _ = request.into_body().collect().await;
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(name.as_bytes()))))
                    }
                });
                // A client that goes away ends its connection and nothing else.
                tokio::spawn(async move {
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Ok(Self { address, asked, accepting })
    }

    /// Says this to whoever has sent a head, then nothing more, and never closes.
    pub async fn silent_after(words: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(speak(stream, words));
            }
        });
        Ok(Self { address, asked: Arc::default(), accepting })
    }
}

async fn speak(mut stream: TcpStream, words: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    stream.write_all(words.as_bytes()).await?;
    // Until the gateway closes.
    stream.read_to_end(&mut head).await.map(drop)
}
