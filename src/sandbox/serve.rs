//! `sandbox --serve`: leaves the sandbox running for others.

use std::io::Write as _;

use super::hosts::LoopHosts;
use super::world::{ROLES, Role, SandboxError, World};
use crate::config::SandboxArgs;
use crate::shutdown::Signals;

pub(super) async fn serve(args: &SandboxArgs, devices: bool) -> Result<(), SandboxError> {
    let mut signals = Signals::listen().map_err(SandboxError::Signals)?;
    let mut world = World::start(args, devices).await?;
    let outcome = until_signalled(args, &mut world, &mut signals).await;
    world.end(outcome).await
}

async fn until_signalled(
    args: &SandboxArgs,
    world: &mut World,
    signals: &mut Signals,
) -> Result<(), SandboxError> {
    if !args.cloud_only {
        for role in ROLES {
            world.drive(role)?;
        }
        for role in ROLES {
            super::tour::ready(&world.socket(role)).await?;
        }
    }
    world.publish().map_err(SandboxError::Directory)?;
    // Nobody may be reading; that is no reason to stop serving.
    let _ = std::io::stdout().write_all(describe(args, world).as_bytes());
    tokio::select! {
        _ = signals.next() => Ok(()),
        failure = world.failure() => Err(failure),
    }
}

fn describe(args: &SandboxArgs, world: &World) -> String {
    let dir = world.place.path().display();
    let mut text = format!("the simulated UCloud serves at {}, also in {dir}/cloud.url\n", world.url);
    if let Err(why) = LoopHosts::supported() {
        text += &format!("its hosts have no block devices: {why}\n");
    }
    if args.cloud_only {
        for role in ROLES {
            let stem = role.stem();
            text += &format!(
                "\n  env $(cat {dir}/{stem}.env) csi-udisk --mode {} --endpoint unix://{dir}/{stem}.sock\n",
                if role == Role::Controller { "controller" } else { "node" },
            );
        }
    } else {
        text += &format!(
            "controller at {dir}/controller.sock, node of {} at {dir}/node.sock, node of {} at {dir}/node-2.sock\n\n\
             \x20 csi-sanity --csi.endpoint=unix://{dir}/node.sock --csi.controllerendpoint=unix://{dir}/controller.sock \\\n\
             \x20   --csi.testvolumeparameters=<(echo 'type: ssd') --csi.testvolumeexpandsize=21474836480 \\\n\
             \x20   --csi.testnodevolumeattachlimit\n\n\
             \x20 grpcurl -plaintext -unix -import-path proto -proto csi.proto \\\n\
             \x20   -d '{{\"name\":\"pvc-by-hand\",\"capacity_range\":{{\"required_bytes\":10737418240}},\"parameters\":{{\"type\":\"ssd\"}},\
             \"volume_capabilities\":[{{\"mount\":{{\"fs_type\":\"ext4\"}},\"access_mode\":{{\"mode\":\"SINGLE_NODE_WRITER\"}}}}]}}' \\\n\
             \x20   {dir}/controller.sock csi.v1.Controller/CreateVolume\n",
            world.host_id(0),
            world.host_id(1),
        );
    }
    text += &format!("\n  curl {}/_sandbox/stats\n\nCtrl-C stops it and removes {dir}\n", world.url,);
    text
}
