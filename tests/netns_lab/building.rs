//! The lab by itself: what `sidestep lab` makes, refuses and leaves behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::support::{DEMO, Lab, privileged};

const HOSTS: [&str; 4] = ["vm1", "onprem", "internet", "storage"];

/// Which of the lab's namespaces and folders there are.
fn present(lab: &Lab) -> Vec<String> {
    let there = |folder: &str, host: &str| Path::new(folder).join(lab.netns(host)).exists();
    let mut found: Vec<_> = HOSTS.into_iter().filter(|host| there("/run/netns", host)).map(str::to_owned).collect();
    found.extend(HOSTS.into_iter().filter(|host| there("/etc/netns", host)).map(|host| format!("etc {host}")));
    found
}

/// Runs `sidestep` where it is to fail, and gives what it says.
fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = lab.command(arguments).output().expect("run");
    assert_eq!(status.code(), Some(1), "{arguments:?}");
    String::from_utf8(stderr).expect("text")
}

#[test]
fn a_lab_comes_whole_and_goes_whole() {
    if !privileged() {
        return;
    }
    let lab = Lab::up("whole", DEMO);
    assert_eq!(present(&lab).len(), 8);
    let status: serde_json::Value =
        serde_json::from_str(&lab.run(&["lab", "status", "--name", lab.name(), "--json"])).expect("JSON");
    assert_eq!(status[0]["state"], "up");
    let servers = status[0]["processes"].as_array().expect("processes").clone();
    assert_eq!(servers.len(), 2);
    assert!(servers.iter().all(|server| server["running"] == true), "{servers:?}");
    assert!(refused(&lab, &["lab", "up", "-c", "network.toml", "--name", lab.name()]).contains("is there already"));
    assert_eq!(present(&lab).len(), 8, "what was refused changed nothing");

    let said = lab.run(&["lab", "down", "--name", lab.name()]);
    assert_eq!(said, format!("removed the lab `{}`: 4 namespaces\n", lab.name()));
    assert_eq!(present(&lab), Vec::<String>::new());
    for server in servers {
        // One that ended and waits for its parent has no program any more.
        let program = Path::new("/proc").join(server["pid"].to_string()).join("exe");
        assert!(program.read_link().is_err(), "{server} still runs");
    }
    assert!(refused(&lab, &["lab", "down", "--name", lab.name()]).contains("there is no lab"));
}

#[test]
fn the_site_hides_behind_its_public_address() {
    if !privileged() {
        return;
    }
    let lab = Lab::up("hides", DEMO);
    // The internet sees whoever is behind the site, and the site itself, under the public addresses.
    lab.exec("onprem", "ip link add inside type veth peer name guest");
    for words in ["address add 192.168.7.1/24 dev inside", "link set inside up"] {
        lab.exec("onprem", &format!("ip {words}"));
    }
    lab.exec("onprem", &format!("ip link set guest netns {}", lab.netns("vm1")));
    for words in ["address add 192.168.7.2/24 dev guest", "link set guest up", "route add default via 192.168.7.1"] {
        lab.exec("vm1", &format!("ip {words}"));
    }
    let curl = "curl -4 -sS --fail --noproxy * --max-time 8 www.example.com";
    let answer = "{\"source\":\"203.0.113.10\",\"server\":\"www.example.com\"}\n";
    assert_eq!(lab.exec("vm1", curl), answer);
    assert_eq!(lab.exec("onprem", curl), answer);
    let v6 = lab.exec("onprem", "curl -6 -sS --fail --noproxy * --max-time 8 www.example.com");
    assert_eq!(v6, "{\"source\":\"2001:db8:ffff::10\",\"server\":\"www.example.com\"}\n");
}

#[test]
fn what_exists_already_is_refused_and_left_alone() {
    if !privileged() {
        return;
    }
    let lab = Lab::prepare("mine", DEMO);
    let mine = lab.netns("internet");
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().expect("ip").success());
    ip(&["netns", "add", &mine]);
    let said = refused(&lab, &["lab", "up", "-c", "network.toml", "--name", lab.name()]);
    let left = present(&lab);
    let listed = refused(&lab, &["lab", "status", "--name", lab.name()]);
    ip(&["netns", "delete", &mine]);
    assert_eq!(
        said,
        format!("error: the network namespace `{mine}` exists already and is not this lab's; nothing was changed\n")
    );
    assert_eq!(left, ["internet"], "only what was there before");
    assert!(listed.contains("there is no lab"), "{listed}");

    let folder = Path::new("/etc/netns").join(lab.netns("vm1"));
    fs::create_dir_all(&folder).expect("folder");
    let said = refused(&lab, &["lab", "up", "-c", "network.toml", "--name", lab.name()]);
    let left = present(&lab);
    fs::remove_dir(&folder).expect("still there");
    assert!(said.contains(&format!("the folder {} exists already", folder.display())), "{said}");
    assert_eq!(left, ["etc vm1"]);
}

#[test]
fn a_step_that_fails_takes_the_others_back() {
    if !privileged() {
        return;
    }
    let lab = Lab::prepare("back", DEMO);
    // Masquerading is set up when the namespaces and the link are there.
    let broken = lab.folder().join("nft");
    fs::write(&broken, "#!/bin/sh\necho 'no rules today' >&2\nexit 1\n").expect("write");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("mode");
    let path = std::env::var("PATH").expect("PATH");
    let mut command = lab.command(&["lab", "up", "-c", "network.toml", "--name", lab.name()]);
    let output = command.env("PATH", format!("{}:{path}", lab.folder().display())).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let netns = lab.netns("onprem");
    assert_eq!(said, format!("error: `ip netns exec {netns} nft -f -` failed (exit status: 1): no rules today\n"));
    assert_eq!(present(&lab), Vec::<String>::new());
    assert!(refused(&lab, &["lab", "status", "--name", lab.name()]).contains("there is no lab"));
}

#[test]
fn a_namespace_that_was_replaced_is_not_removed() {
    if !privileged() {
        return;
    }
    let lab = Lab::up("replaced", DEMO);
    let name = lab.netns("vm1");
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().expect("ip").success());
    ip(&["netns", "delete", &name]);
    ip(&["netns", "add", &name]);
    let said = lab.run(&["lab", "down", "--name", lab.name()]);
    let left = present(&lab);
    ip(&["netns", "delete", &name]);
    assert!(said.contains("removed the lab"), "{said}");
    assert_eq!(left, ["vm1"], "the new one of the same name is somebody else's");
}
