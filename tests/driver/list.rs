//! ListVolumes while volumes come and go, which csi-sanity leaves pending.

use std::collections::BTreeSet;

use csi_udisk::csi::proto::v1;
use tonic::Code;

use crate::csi;
use crate::world::{Driver, World};

async fn create(driver: &Driver, name: &str) -> String {
    let answer = driver.controller().create_volume(csi::create(name, "ext4", 10)).await.unwrap().into_inner();
    answer.volume.unwrap().volume_id
}

async fn page(
    driver: &Driver,
    token: &str,
    max_entries: i32,
) -> (Vec<v1::list_volumes_response::Entry>, String) {
    let request = v1::ListVolumesRequest { max_entries, starting_token: token.to_owned() };
    let answer = driver.controller().list_volumes(request).await.unwrap().into_inner();
    (answer.entries, answer.next_token)
}

fn id(entry: &v1::list_volumes_response::Entry) -> String {
    entry.volume.as_ref().unwrap().volume_id.clone()
}

/// Whatever comes and goes between the pages, and although another process answers each of them: what is there all
/// the time is listed once.
#[tokio::test]
async fn pages_hold_every_lasting_volume_once_while_others_come_and_go() {
    let world = World::start("none").await;
    let mut driver = world.controller().await;
    let mut lasting = BTreeSet::new();
    let mut leaving = Vec::new();
    for number in 0..9 {
        lasting.insert(create(&driver, &format!("pvc-lasting-{number}")).await);
        leaving.push(create(&driver, &format!("pvc-leaving-{number}")).await);
    }
    for max_entries in [1, 2, 5, 100, 0] {
        let mut listed = Vec::new();
        let mut token = String::new();
        for round in 0.. {
            let (entries, next) = page(&driver, &token, max_entries).await;
            assert!(max_entries == 0 || entries.len() <= usize::try_from(max_entries).unwrap());
            listed.extend(entries.iter().map(id));
            if next.is_empty() {
                break;
            }
            token = next;
            // One goes and one comes at each page, the one that goes sometimes the last that was listed.
            if let Some(gone) = leaving.pop() {
                driver.controller().delete_volume(csi::delete(&gone)).await.unwrap();
            }
            leaving.insert(0, create(&driver, &format!("pvc-coming-{max_entries}-{round}")).await);
            if round == 1 {
                driver.process.kill();
                driver = world.controller().await;
            }
        }
        let mut once = BTreeSet::new();
        for id in &listed {
            assert!(once.insert(id), "{id} is listed twice with max_entries {max_entries}");
        }
        let missing: Vec<_> = lasting.iter().filter(|id| !once.contains(id)).collect();
        assert!(missing.is_empty(), "max_entries {max_entries} leaves out {missing:?}");
    }
}

#[tokio::test]
async fn a_published_node_is_named_in_both_forms_and_others_are_not() {
    let world = World::start("none").await;
    let driver = world.controller().await;
    let (used, free) = (create(&driver, "pvc-used").await, create(&driver, "pvc-free").await);
    driver.controller().controller_publish_volume(csi::attach(&used, "uhost-a", "ext4")).await.unwrap();
    let (entries, token) = page(&driver, "", 0).await;
    assert!(token.is_empty(), "max_entries 0 means all");
    let nodes = |wanted: &str| {
        let entry = entries.iter().find(|entry| id(entry) == wanted).unwrap();
        entry.status.clone().unwrap_or_default().published_node_ids
    };
    assert_eq!(nodes(&used), ["uhost-a", "10.9.0.11"]);
    assert!(nodes(&free).is_empty());
    // The form of the plugin that is replaced works for detaching too.
    driver.controller().controller_unpublish_volume(csi::detach(&used, "10.9.0.11")).await.unwrap();
    let (entries, _) = page(&driver, "", 0).await;
    assert!(
        entries.iter().all(|entry| entry.status.clone().unwrap_or_default().published_node_ids.is_empty())
    );
}

#[tokio::test]
async fn a_token_that_was_never_given_out_is_refused() {
    let world = World::start("none").await;
    let driver = world.controller().await;
    for token in ["invalid-token", "v1:", "v2:bsm-1", "v1:bsm/1", "\u{1F4BE}"] {
        let request = v1::ListVolumesRequest { max_entries: 1, starting_token: token.to_owned() };
        let refused = driver.controller().list_volumes(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{token}: {refused:?}");
        assert!(refused.message().contains("starting_token"), "{refused:?}");
    }
    let negative = v1::ListVolumesRequest { max_entries: -1, starting_token: String::new() };
    let refused = driver.controller().list_volumes(negative).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}
