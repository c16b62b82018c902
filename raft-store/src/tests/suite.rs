//! openraft's own suite for storages, on a real directory.

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::{IDENTITY, small};
use crate::{LogStore, Machine, TypeConfig, disk::RealDisk, open, store::prepare_on};

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        prepare_on(&RealDisk, dir.path(), IDENTITY, &small()).unwrap();
        let opened = open(dir.path(), small()).unwrap();
        Ok((dir, opened.log, opened.machine))
    }
}

#[tokio::test]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(OnDisk).await.unwrap();
}
