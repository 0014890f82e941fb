//! Each scenario of the service-endpoint page, by the command that the README gives: it says who got what.

use std::process::Command;

use super::IO;
use super::support::privileged;

/// Runs a scenario with both kinds of devices and compares what it prints.
#[track_caller]
fn shows(name: &str, expected: &str) {
    if !privileged() {
        return;
    }
    for io in IO {
        let mut command = Command::new("timeout");
        command.args(["120", "scripts/scenario", name, "--io", io]).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env("SIDESTEP", env!("CARGO_BIN_EXE_sidestep"));
        command.env("PREFIX", format!("ss-test-{}-scenario", std::process::id()));
        let output = command.output().expect("run");
        let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} {io}: {said}");
        let lines = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(lines(&out), lines(expected), "{name} {io}: {said}");
    }
}

#[test]
fn peered_networks() {
    shows(
        "peered-networks",
        "peered-shared https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.0.1.4
         peered-orders https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4
         peered-reports https://contosodata.blob.core.windows.net/ cannot connect
         peered-reports http://contosodata.blob.core.windows.net/ 403 AuthorizationFailure",
    );
}

/// S8: the service sees the identity of the appliance's subnet.
#[test]
fn appliance_egress() {
    shows(
        "appliance-egress",
        "egress-vm1 https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4
         egress-vm1 http://contosologs.blob.core.windows.net/ 403 AuthorizationFailure
         egress-vm1 https://www.example.com/ cannot connect",
    );
}

#[test]
fn managed_subnet() {
    shows(
        "managed-subnet",
        "managed-instance https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4
         managed-instance https://www.example.com/ no answer
         managed-backup https://contosodata.blob.core.windows.net/ 200 contosodata sees 203.0.113.200
         managed-other http://contosodata.blob.core.windows.net/ 403 AuthorizationFailure",
    );
}

#[test]
fn on_premises_nat() {
    shows(
        "on-premises-nat",
        "onprem-headquarters https://contosodata.blob.core.windows.net/ 200 contosodata sees 203.0.113.10
         onprem-branch http://contosodata.blob.core.windows.net/ 403 AuthorizationFailure
         onprem-vm1 https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4",
    );
}

/// S5: only the network with a rule comes in.
#[test]
fn same_addresses() {
    shows(
        "same-addresses",
        "same-blue https://fabrikamdata.blob.core.windows.net/ 200 fabrikamdata sees 10.1.1.4
         same-blue https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4
         same-blue http://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4
         same-green https://fabrikamdata.blob.core.windows.net/ 200 fabrikamdata sees 10.1.1.4
         same-green https://contosodata.blob.core.windows.net/ cannot connect
         same-green http://contosodata.blob.core.windows.net/ 403 AuthorizationFailure",
    );
}

/// S9 is at the end: the numbers of Azure SQL's errors.
#[test]
fn secured() {
    shows(
        "secured",
        "secured-app https://contosodata.blob.core.windows.net/ 200 contosodata sees 10.1.1.4
         secured-app https://fabrikamdata.blob.core.windows.net/ connection reset or closed
         secured-app https://contosobackup.blob.core.windows.net/ 200 contosobackup sees 10.1.1.4
         secured-app https://www.example.com/ no answer
         secured-app http://169.254.169.254/ 200 platform sees 10.1.1.4
         secured-app http://contosodb.database.windows.net:1433/ connection reset or closed
         secured-jumpbox https://fabrikamdata.blob.core.windows.net/ 200 fabrikamdata sees 203.0.113.200
         secured-jumpbox http://contosobackup.blob.core.windows.net/ 403 AuthorizationFailure
         secured-jumpbox http://contosodb.database.windows.net:1433/ connection reset or closed
         contosodb 40914 10.1.1.4 Cannot open server 'contosodb' requested by the login. Client is not allowed to access \
         the server.
         contosodb 40615 203.0.113.200 Cannot open server 'contosodb' requested by the login. Client with IP address \
         '203.0.113.200' is not allowed to access the server.",
    );
}
