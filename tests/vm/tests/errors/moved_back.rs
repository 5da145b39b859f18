// SPDX-License-Identifier: GPL-2.0
//! M7, M7a: main has to have what is moved back, and not its write cache.

use vmtest::guest::sickdisk::Fading;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

const KINDS: [Fading; 2] = [Fading::Unreadable, Fading::Stale];

/// Blocks 0 to 64 on the spare, with content that main never had; block 13 of main fades.
fn fading(kind: Fading) -> Remap {
    let remap = Remap::new(512);
    remap.device().message("remap 0 64").unwrap();
    remap.open().write(0, &stamps(0, 64, 1)).unwrap();
    remap.main.disk().spoil(13, 1, Fault::fading(kind));
    remap
}

/// M7a: main takes a block and flushes well, and does not have it then: it stays on the spare, and all that
/// was moved has its content.
#[test]
fn a_block_that_fades_from_main_stays_on_the_spare() {
    let _test = vmtest::begin!();
    for kind in KINDS {
        let remap = fading(kind);
        let device = remap.open();
        assert!(
            remap.device().message("remove_remap 0 64").is_err(),
            "{kind:?}"
        );
        assert!(remap.slot_of(13).is_some(), "{kind:?}");
        assert_eq!(remap.device().remapped(), 64 - 13, "{kind:?}");
        assert!(
            device.read(0, 64).unwrap() == stamps(0, 64, 1),
            "{kind:?}: something is lost"
        );
        remap.main.disk().heal(13, 1);
        remap.device().message("remove_remap 0 64").unwrap();
        assert_eq!(remap.device().remapped(), 0, "{kind:?}");
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1), "{kind:?}");
    }
}

/// M7a: the same when everything is moved back: all others are.
#[test]
fn clear_all_leaves_what_fades_from_main() {
    let _test = vmtest::begin!();
    for kind in KINDS {
        let remap = fading(kind);
        let reply = remap.device().message("clear_all").unwrap();
        assert_eq!(reply, "63 blocks moved back, 1 stay on the spare");
        assert!(remap.slot_of(13).is_some(), "{kind:?}");
        let device = remap.open();
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1), "{kind:?}");
    }
}
