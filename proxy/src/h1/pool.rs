//! Idle connections to HTTP/1 servers, kept by the thread that opened them, last in first out.
//!
//! A connection is looked at before it is used, without a system call: whatever has come on it (an end, a reset, or bytes
//! that nobody asked for) makes it useless. One task of the thread drops those that were idle for too long.

use super::Conn;
use crate::{endpoint::Endpoint, hop::Transport};
use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    task::{Context, Waker},
};
use tokio::time::Instant;
use weft_proto::limits;

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    address: SocketAddr,
    /// It stays in the proxy's own pod.
    is_self: bool,
    /// The policy of the TLS that it carries; 0 for none.
    policy: u64,
}

impl Key {
    /// Connections to this endpoint, spoken to like this.
    pub fn new(endpoint: &Endpoint, transport: &Transport) -> Self {
        let policy = match transport {
            Transport::Tls(policy) => policy.id,
            _ => 0,
        };
        Self {
            address: endpoint.address,
            is_self: endpoint.is_self,
            policy,
        }
    }
}

#[derive(Default)]
struct Pool {
    idle: HashMap<Key, Vec<(Box<Conn>, Instant)>, foldhash::fast::RandomState>,
    is_swept: bool,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// An idle connection that is good as far as anybody can tell.
pub fn take(key: Key) -> Option<Box<Conn>> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.get_mut(&key)?;
        while let Some((mut conn, since)) = idle.pop() {
            if since.elapsed() < limits::SERVER_IDLE
                && conn.poll_fill(&mut Context::from_waker(Waker::noop()), 1).is_pending()
            {
                return Some(conn);
            }
        }
        None
    })
}

/// Keeps a connection for the next request, if it is as new.
pub fn give(key: Key, conn: Box<Conn>) {
    if !conn.is_idle() {
        return;
    }
    let sweep = POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.entry(key).or_default();
        if idle.len() >= limits::IDLE_CONNECTIONS {
            idle.remove(0);
        }
        idle.push((conn, Instant::now()));
        !std::mem::replace(&mut pool.is_swept, true)
    });
    if sweep {
        tokio::spawn(Box::pin(sweep_idle()));
    }
}

async fn sweep_idle() {
    loop {
        tokio::time::sleep(limits::SERVER_IDLE / 2).await;
        // Dropped outside of the borrow: a connection's end may wake others that come here.
        let old: Vec<Box<Conn>> = POOL.with_borrow_mut(|pool| {
            let mut old = Vec::new();
            pool.idle.retain(|_, idle| {
                let fresh = idle.partition_point(|(_, since)| since.elapsed() >= limits::SERVER_IDLE);
                old.extend(idle.drain(..fresh).map(|(conn, _)| conn));
                !idle.is_empty()
            });
            pool.is_swept = !pool.idle.is_empty();
            old
        });
        drop(old);
        if !POOL.with_borrow(|pool| pool.is_swept) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Io;
    use tokio::io::AsyncWriteExt;

    const KEY: Key = Key {
        address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80),
        is_self: false,
        policy: 0,
    };

    #[tokio::test(start_paused = true)]
    async fn gives_back_the_last_one_that_is_still_good() {
        let (first, _first_far) = Io::pair(100);
        let (ended, ended_far) = Io::pair(100);
        let (spoke, mut spoke_far) = Io::pair(100);
        give(KEY, Box::new(Conn::new(first)));
        give(KEY, Box::new(Conn::new(ended)));
        give(KEY, Box::new(Conn::new(spoke)));
        drop(ended_far);
        spoke_far.write_all(b"HTTP/1.1 408").await.unwrap();
        assert!(take(KEY).is_some());
        assert!(take(KEY).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn drops_what_was_idle_for_too_long() {
        let (near, mut far) = Io::pair(100);
        give(KEY, Box::new(Conn::new(near)));
        let before = Instant::now();
        assert_eq!(tokio::io::AsyncReadExt::read(&mut far, &mut [0; 1]).await.unwrap(), 0);
        assert!(before.elapsed() <= limits::SERVER_IDLE * 2);
        assert!(take(KEY).is_none());
    }
}
