//! A server on a thread of its own, so that nothing else of the process is between a request and its answer: a request is read,
//! decided and answered without a hand-over, which among several workers costs a system call or two and a wake-up for each.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Ends with `work`, which begins with a listener of that thread's own runtime; a panic of it comes back here.
pub async fn on_own_thread<W, F>(name: &str, listener: TcpListener, work: W) -> io::Result<()>
where
    W: FnOnce(TcpListener) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    // A listener belongs to the runtime in which it was made.
    let listener = listener.into_std()?;
    let (ends, ended) = oneshot::channel::<Result<io::Result<()>, Box<dyn Any + Send>>>();
    let run = move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            work(TcpListener::from_std(listener)?).await;
            Ok(())
        })
    };
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Whoever waited is gone: nobody is left to tell.
        let _ = ends.send(catch_unwind(AssertUnwindSafe(run)));
    })?;
    match ended.await {
        Ok(Ok(ended)) => ended,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => Err(io::Error::other("the thread is gone")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_thread_ends_with_its_work_and_panics_where_it_is_waited_for() {
        let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = thread::current().id();
        let work = async move |_| {
            assert_ne!(thread::current().id(), here);
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        on_own_thread("calm", listener().await, work).await.unwrap();
        let panics = async |_| panic!("this test panics on purpose");
        let panicked = tokio::spawn(on_own_thread("panics", listener().await, panics)).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
