//! The two volumes of a meshed pod: the projected token that proves to the identity service which pod this is, and a
//! directory in memory for the admin socket.
//!
//! Every field that the API server would fill in is said, so that a pod that comes by again compares equal.

use k8s_openapi::{
    api::core::v1::{
        EmptyDirVolumeSource, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use weft_proto::names::{self, container};

/// Both, in the order in which they are added behind the user's.
pub fn volumes() -> [Volume; 2] {
    [token(), run()]
}

/// Where the proxy reads its token.
pub fn token_mount() -> VolumeMount {
    VolumeMount {
        name: container::TOKEN_VOLUME.into(),
        mount_path: container::TOKEN_MOUNT.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// Where the proxy binds its admin socket.
pub fn run_mount() -> VolumeMount {
    VolumeMount {
        name: container::RUN_VOLUME.into(),
        mount_path: container::RUN_MOUNT.into(),
        ..VolumeMount::default()
    }
}

fn token() -> Volume {
    let projection = ServiceAccountTokenProjection {
        audience: Some(names::TOKEN_AUDIENCE.into()),
        expiration_seconds: Some(names::TOKEN_LIFE_SECONDS),
        path: container::TOKEN_FILE.into(),
    };
    Volume {
        name: container::TOKEN_VOLUME.into(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(projection),
                ..VolumeProjection::default()
            }]),
        }),
        ..Volume::default()
    }
}

fn run() -> Volume {
    Volume {
        name: container::RUN_VOLUME.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Quantity("1Mi".into())),
        }),
        ..Volume::default()
    }
}
