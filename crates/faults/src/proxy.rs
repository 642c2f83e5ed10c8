//! A connection that dies between the server's answer and its client: what was asked is done, and nobody hears of it.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Passes bytes on, to and fro, until it is told to lose an answer.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    /// The next bytes of an answer are thrown away, and the connection with them.
    cut: AtomicBool,
    lost: AtomicU64,
    end: AtomicBool,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            cut: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            end: AtomicBool::new(false),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if shared.end.load(Ordering::Relaxed) {
                        return;
                    }
                    // Who cannot be connected sees the connection end.
                    let _ = shared.clone().connect(client);
                }
            }
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next answer gets lost.
    pub(crate) fn cut_next(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn connect(self: Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.server)?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        // Both threads end with their connection.
        std::thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Both);
        });
        std::thread::spawn(move || {
            let _ = self.answer(server, &client);
            let _ = client.shutdown(Shutdown::Both);
        });
        Ok(())
    }

    fn answer(&self, mut server: TcpStream, mut client: &TcpStream) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        loop {
            let count = server.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            if self.cut.swap(false, Ordering::SeqCst) {
                self.lost.fetch_add(1, Ordering::SeqCst);
                return server.shutdown(Shutdown::Both);
            }
            client.write_all(&bytes[..count])?;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        // Wakes the acceptor; if that fails, it has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
