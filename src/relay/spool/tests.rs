use super::*;

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("agent-tracing-spool-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

async fn put(spool: &Spool, lane: LaneId, request: Bytes) -> Result<Ticket, Error> {
    spool.put(lane, Queue::Ready, spool.reserve(), request).await
}

fn request(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn what_was_put_is_there_after_a_new_start_in_its_order() {
    let folder = folder("restart");
    let file = folder.join("spool.redb");
    {
        let (spool, found) = Spool::open(Some(&file), 1 << 20).unwrap();
        assert!(found.is_empty());
        let (teller, rag) =
            (spool.lane("deployment/teller name:teller").await.unwrap(), spool.lane("job/rag name:rag").await.unwrap());
        assert_ne!(teller, rag);
        for text in ["first", "second", "third"] {
            put(&spool, teller, request(text)).await.unwrap();
        }
        let other = put(&spool, rag, request("other")).await.unwrap();
        let (first, bytes) = spool.first(teller, Queue::Ready, 0).await.unwrap().unwrap();
        assert_eq!(bytes, "first");
        spool.set_aside(first).await.unwrap();
        spool.delete(other).await.unwrap();
    }
    let (spool, mut found) = Spool::open(Some(&file), 1 << 20).unwrap();
    found.sort_by_key(|found| (found.name.clone(), found.queue));
    let found: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.queue, found.count)).collect();
    let teller = "deployment/teller name:teller";
    assert_eq!(found, [(teller, Queue::Ready, 2), (teller, Queue::Aside, 1)]);
    let lane = spool.lane(teller).await.unwrap();
    assert_eq!(spool.first(lane, Queue::Ready, 0).await.unwrap().unwrap().1, "second");
    assert_eq!(spool.first(lane, Queue::Aside, 0).await.unwrap().unwrap().1, "first");
    // A number that was given before is not given again.
    let fourth = put(&spool, lane, request("fourth")).await.unwrap();
    for expected in ["second", "third", "fourth"] {
        let (ticket, bytes) = spool.first(lane, Queue::Ready, 0).await.unwrap().unwrap();
        assert_eq!(bytes, expected);
        spool.delete(ticket).await.unwrap();
    }
    assert_eq!(spool.first(lane, Queue::Ready, 0).await.unwrap(), None);
    assert_eq!(fourth.length, 6);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn what_waited_is_put_in_line_and_after_a_new_start_all_of_it() {
    let folder = folder("waiting");
    let file = folder.join("spool.redb");
    let names = ["deployment/teller name:teller", "deployment/teller name:other"];
    {
        let (spool, _) = Spool::open(Some(&file), 1 << 20).unwrap();
        let (teller, other) = (spool.lane(names[0]).await.unwrap(), spool.lane(names[1]).await.unwrap());
        let mut waiting = Vec::new();
        for text in ["tag", "row", "late tag"] {
            waiting.push(spool.put(teller, Queue::Waiting, spool.reserve(), request(text)).await.unwrap());
        }
        put(&spool, other, request("spans")).await.unwrap();
        assert_eq!(spool.line_up(&[waiting[1], waiting[0]], Some(other)).await.unwrap(), [other, other]);
        for expected in ["spans", "row"] {
            let (ticket, bytes) = spool.first(other, Queue::Ready, 0).await.unwrap().unwrap();
            assert_eq!(bytes, expected);
            spool.delete(ticket).await.unwrap();
        }
    }
    let (spool, found) = Spool::open(Some(&file), 1 << 20).unwrap();
    let found: Vec<_> = found.iter().map(|found| (found.queue, found.count)).collect();
    assert_eq!(found, [(Queue::Ready, 1), (Queue::Ready, 1)]);
    let teller = spool.lane(names[0]).await.unwrap();
    assert_eq!(spool.first(teller, Queue::Ready, 0).await.unwrap().unwrap().1, "late tag");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_full_spool_says_so_and_takes_again_what_has_room() {
    let (spool, _) = Spool::open(None, 1000).unwrap();
    let lane = spool.lane("deployment/teller name:teller").await.unwrap();
    let large = Bytes::from(vec![0; 800]);
    let ticket = put(&spool, lane, large.clone()).await.unwrap();
    let refused = put(&spool, lane, large.clone()).await.unwrap_err().to_string();
    assert_eq!(refused, format!("the spool is full: it holds {} of 1000 bytes", 800 + OVERHEAD));
    spool.delete(ticket).await.unwrap();
    assert_eq!(spool.bytes(), (0, 1000));
    put(&spool, lane, large).await.unwrap();
}

#[tokio::test]
async fn many_at_once_are_written_in_groups_and_none_is_lost() {
    let folder = folder("groups");
    let (spool, _) = Spool::open(Some(&folder.join("spool.redb")), 1 << 20).unwrap();
    let spool = Arc::new(spool);
    let lane = spool.lane("deployment/teller name:teller").await.unwrap();
    let puts = (0..500).map(|_| put(&spool, lane, request("spans")));
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    let mut count = 0;
    while let Some((ticket, _)) = spool.first(lane, Queue::Ready, 0).await.unwrap() {
        spool.delete(ticket).await.unwrap();
        count += 1;
    }
    assert_eq!((count, spool.bytes().0), (500, 0));
    std::fs::remove_dir_all(folder).unwrap();
}
