// SPDX-License-Identifier: GPL-2.0
//! What people are told to type does what they are told: the examples of docs/dm-remap.rst, and the instructions of two
//! older tools, as their users wrote them down.
//!
//! Here udev runs, as it does on their machines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use vmtest::guest::load;
use vmtest::guest::start_udev;
use vmtest::guest::succeed;
use vmtest::guest::unload;

/// A shell with a folder of its own, in which everything is typed.
struct Shell {
    folder: &'static str,
}

impl Shell {
    /// As root, in a checkout with a module that was just built, and without one that is loaded.
    fn begin(folder: &'static str) -> Self {
        // What it needs is there.
        load();
        unload();
        // As their machines have it since they were booted.
        succeed("modprobe loop");
        start_udev();
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(Path::new(folder).join("src")).expect("a folder");
        let module = std::env::var_os("DM_REMAP_MODULE").expect("DM_REMAP_MODULE");
        symlink(module, Path::new(folder).join("src/dm_remap.ko")).expect("a link");
        Self { folder }
    }

    /// Types some lines, of which each must succeed, and tells what is printed. What one left in a variable, the next
    /// ones find there.
    #[track_caller]
    fn types(&self, lines: &str) -> String {
        println!("{lines}");
        let script = format!(
            "set -e -o pipefail; cd {}; [ ! -e variables ] || . ./variables; sudo() {{ \"$@\"; }}\n\
             {lines}\n\
             declare -p | grep -E '^declare -- [A-Za-z_]+=\"[^\"]*\"$' | grep -v BASH >variables",
            self.folder
        );
        let output = Command::new("bash").arg("-c").arg(script).output();
        let output = output.expect("run bash");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        println!("{out}{errors}");
        assert!(output.status.success(), "{lines}\n{out}{errors}");
        out
    }
}

/// The fields that scripts read by their place, up to `saves=`.
#[track_caller]
fn assert_status(status: &str, fields: &str) {
    let told: Vec<&str> = status.split_whitespace().take(13).collect();
    assert_eq!(told.join(" "), fields, "{status}");
}

/// The first one: a small spare, messages, and remaps that are there again.
#[test]
fn the_first_of_the_older_instructions() {
    let _test = vmtest::begin!();
    let shell = Shell::begin("/tmp/first");
    shell.types(
        r#"
        # 2. Load the v3.0 module
        sudo insmod src/dm_remap.ko
        # 3. Create v3.0 device with persistence (requires main + spare devices)
        truncate -s 100M /tmp/main.img
        truncate -s 20M /tmp/spare.img
        LOOP_MAIN=$(sudo losetup -f --show /tmp/main.img)
        LOOP_SPARE=$(sudo losetup -f --show /tmp/spare.img)
        echo "0 $(sudo blockdev --getsz $LOOP_MAIN) remap $LOOP_MAIN $LOOP_SPARE 0 $(sudo blockdev --getsz $LOOP_SPARE)" | sudo dmsetup create my_remap_v3
        "#,
    );
    let status = shell.types("sudo dmsetup status my_remap_v3");
    let capacity = status.split_whitespace().nth(4).expect("a fraction");
    let capacity: u64 = capacity.strip_prefix("0/").expect("none").parse().unwrap();
    assert!(capacity > 30_000, "{status}");
    let line = |remapped: u64, saves: &str| {
        format!(
            "0 204800 remap v3.0 {remapped}/{capacity} 0/{capacity} {remapped}/{capacity} health=1 errors=W0:R0 \
             auto_remaps=0 manual_remaps={remapped} scan=0% {saves}"
        )
    };
    assert_status(&status, &line(0, "metadata=enabled"));
    assert!(status.contains(" autosave=active "), "{status}");
    shell.types(
        r#"
        sudo dmsetup message my_remap_v3 0 remap 12345
        # Force save metadata to spare device
        sudo dmsetup message my_remap_v3 0 save
        # Sync all pending metadata operations
        sudo dmsetup message my_remap_v3 0 sync
        "#,
    );
    assert_status(
        &shell.types("sudo dmsetup status my_remap_v3"),
        &line(1, "metadata=enabled"),
    );
    let status = shell.types(
        r#"
        # Remove device (metadata stays on spare device)
        sudo dmsetup remove my_remap_v3
        # Recreate device - metadata automatically restored
        echo "0 $(sudo blockdev --getsz $LOOP_MAIN) remap $LOOP_MAIN $LOOP_SPARE 0 $(sudo blockdev --getsz $LOOP_SPARE)" | sudo dmsetup create my_remap_v3
        # Verify remaps were restored
        sudo dmsetup status my_remap_v3
        "#,
    );
    assert_status(&status, &line(1, "metadata=enabled"));
    let read = shell.types(
        r#"
        sudo dd if=/dev/urandom of=/dev/mapper/my_remap_v3 bs=512 seek=123456 count=1
        sudo dd if=/dev/zero of=/dev/mapper/my_remap_v3 bs=512 seek=123456 count=1
        sudo dd if=/dev/mapper/my_remap_v3 bs=512 skip=123456 count=1 | hexdump -C
        "#,
    );
    assert!(
        read.starts_with("00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |"),
        "{read}"
    );
    let sources = "/sys/kernel/debug/dm_remap/remap_table";
    let table = shell.types(&format!(
        r#"
        mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
        sudo dmsetup message my_remap_v3 0 set_auto_remap 1
        sudo dmsetup message my_remap_v3 0 ping
        sudo dmsetup message my_remap_v3 0 clear_stats
        cat {sources}
        "#
    ));
    assert!(table.contains("pong"), "{table}");
    let row = table.lines().find(|line| line.contains(" 12345 "));
    let row = row.unwrap_or_else(|| panic!("no row of 12345 in {table}"));
    assert!(row.starts_with("my_remap_v3 "), "{row}");
    let done = shell.types(
        r#"
        sudo fio --name=remap_test --filename=/dev/mapper/my_remap_v3 \
                 --direct=1 --rw=randrw --bs=4k --size=50M \
                 --numjobs=1 --time_based --runtime=1 --group_reporting
        sudo dmsetup remove my_remap_v3
        sudo losetup -d $LOOP_MAIN
        sudo losetup -d $LOOP_SPARE
        rm /tmp/main.img /tmp/spare.img
        "#,
    );
    assert!(done.contains("err= 0"), "{done}");
    unload();
}

/// The second one: a spare as large as main, a target of another name, a file system, and a line for a growing table. It asks
/// for two free loop devices before it uses one of them, and gets the same one twice: here each is used at once.
#[test]
fn the_second_of_the_older_instructions() {
    let _test = vmtest::begin!();
    let shell = Shell::begin("/tmp/second");
    // For 500 MB twice.
    succeed("mount -o remount,size=1200m /tmp");
    shell.types(
        r#"
        sudo insmod src/dm_remap.ko
        sudo dmsetup targets | grep remap
        # Create 500MB test files
        dd if=/dev/zero of=/tmp/main bs=1M count=500
        dd if=/dev/zero of=/tmp/spare bs=1M count=500
        # Setup loopback
        MAIN=$(sudo losetup -f)
        sudo losetup $MAIN /tmp/main
        SPARE=$(sudo losetup -f)
        sudo losetup $SPARE /tmp/spare
        # Calculate sectors
        SECTORS=$((500 * 1024 * 1024 / 512))
        # Create device
        TABLE="0 $SECTORS dm-remap-v4 $MAIN $SPARE"
        echo "$TABLE" | sudo dmsetup create my-remap
        "#,
    );
    let files = shell.types(
        r#"
        # Format and mount
        sudo mkfs.ext4 /dev/mapper/my-remap
        sudo mkdir -p /mnt/remap
        sudo mount /dev/mapper/my-remap /mnt/remap
        # Write data
        sudo cp /usr/bin/ls /mnt/remap/
        ls /mnt/remap/
        sync
        cmp /usr/bin/ls /mnt/remap/ls
        "#,
    );
    assert!(files.lines().any(|file| file == "ls"), "{files}");
    // Here we differ: it has blocks served by what the spare holds, so nobody is to use them, and metadata is no place
    // for them. Who is refused can ask why, and is told what would do.
    let why = shell.types(
        r#"
        sudo umount /mnt/remap
        # Add remap
        ! sudo dmsetup message my-remap 0 "add_remap 1000 5000 100"
        sudo dmsetup message my-remap 0 why
        "#,
    );
    let numbers = why.split(|character: char| !character.is_ascii_digit());
    let free = numbers.filter_map(|word| word.parse::<u64>().ok());
    let free = free.filter(|sector| *sector > 5000).min();
    let free = free.unwrap_or_else(|| panic!("no sectors are named: {why}"));
    let log = shell.types(&format!(
        r#"
        sudo dmsetup message my-remap 0 "add_remap 1000 {free} 100"
        sudo dmsetup message my-remap 0 verify 1000
        # Watch for resize event
        sudo dmesg | grep "Adaptive hash table"
        "#
    ));
    assert!(log.contains("Adaptive hash table: 64 -> "), "{log}");
    assert!(log.contains(&free.to_string()), "{log}");
    for message in ["help", "status", "stats", "health", "clear_stats"] {
        shell.types(&format!("sudo dmsetup message my-remap 0 {message}"));
    }
    shell.types("cat /sys/kernel/dm_remap/*/all_stats | grep -q remapped_blocks");
    let back = shell.types(
        r#"
        sudo dmsetup message my-remap 0 clear_all
        sudo dmsetup status my-remap
        sudo dmsetup remove my-remap
        sudo losetup -d $MAIN $SPARE
        rm /tmp/main /tmp/spare
        "#,
    );
    assert!(back.contains(" dm-remap-v4 v3.0 0/"), "{back}");
    unload();
}

/// What a wrapper of theirs hands to dmsetup: where main begins stands in it, too.
#[test]
fn the_older_wrappers_line() {
    let _test = vmtest::begin!();
    let shell = Shell::begin("/tmp/wrapper");
    let status = shell.types(
        r#"
        sudo insmod src/dm_remap.ko
        truncate -s 10M /tmp/main.img
        truncate -s 10M /tmp/spare.img
        MAIN=$(sudo losetup -f --show /tmp/main.img)
        SPARE=$(sudo losetup -f --show /tmp/spare.img)
        dmsetup create my_remap --table "0 20480 remap $MAIN 0 $SPARE 0 20480"
        sudo dmsetup message my_remap 0 remap 2048
        sudo dd if=/dev/zero of=/dev/mapper/my_remap bs=512 seek=4096 count=1
        dmsetup status my_remap
        dmsetup table my_remap
        dmsetup table my_remap >table && dmsetup load my_remap <table && dmsetup resume my_remap
        dmsetup remove my_remap
        losetup -d $MAIN $SPARE
        rm /tmp/main.img /tmp/spare.img
        "#,
    );
    assert!(status.contains("0 20480 remap v3.0 1/"), "{status}");
    unload();
}

/// The lines that a section of the page tells to type.
fn examples() -> Vec<String> {
    let page = include_str!("../../../docs/dm-remap.rst");
    let (_, section) = page.split_once("\nExamples\n").expect("examples");
    let (section, _) = section.split_once("\nLimitations\n").expect("an end");
    let blocks = section.split("::\n\n").skip(1);
    let lines = |block: &str| {
        let lines = block.lines().take_while(|line| line.starts_with("    "));
        lines.map(str::trim).collect::<Vec<_>>().join("\n")
    };
    blocks.map(lines).collect()
}

/// The page's own examples, one after the other, on one device.
#[test]
fn the_examples_of_the_page() {
    let _test = vmtest::begin!();
    let shell = Shell::begin("/tmp/page");
    let examples = examples();
    let [make, again, replace, take_out] = &*examples else {
        panic!("{examples:#?}");
    };
    shell.types(
        r#"
        insmod src/dm_remap.ko
        for disk in main spare new; do truncate -s 64M /tmp/$disk.img; done
        main=$(losetup -f --show /tmp/main.img)
        spare=$(losetup -f --show /tmp/spare.img)
        new=$(losetup -f --show /tmp/new.img)
        old=$spare
        mkfs.ext4 -q $main
        "#,
    );
    let made = shell.types(make);
    let uuid = made.split(" uuid ").nth(1).expect("a line to use");
    let uuid = uuid.split_whitespace().next().expect("a UUID");
    shell.types(&format!(
        "cp /usr/bin/ls /mnt/ls; dmsetup message data 0 remap 2048 64; umount /mnt; dmsetup remove data; uuid={uuid}"
    ));
    shell.types(again);
    shell.types("mount /dev/mapper/data /mnt; cmp /usr/bin/ls /mnt/ls");
    shell.types(replace);
    let status = shell.types("dmsetup status data; cmp /usr/bin/ls /mnt/ls");
    assert!(status.contains(" spares=1/1 "), "{status}");
    assert!(status.contains(" dm-remap v3.0 64/"), "{status}");
    let told = shell.types(take_out);
    assert!(told.lines().any(|line| line == "end"), "{told}");
    assert!(!told.contains("remapped"), "{told}");
    shell.types(
        r#"
        mount $main /mnt; cmp /usr/bin/ls /mnt/ls; umount /mnt
        losetup -d $main $spare $new; rm /tmp/*.img
        "#,
    );
    unload();
}
