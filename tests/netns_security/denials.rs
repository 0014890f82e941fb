//! What those hear whom a firewall or a policy denies, and that others come in.

use super::{APP, BACKUP, CONTOSO, Curl, FABRIKAM, FIREWALL, JUMPBOX, SECURED, curl, ended_at_once, on_both, secured};

/// The 403 of Azure Storage, to the byte where it is always the same.
#[track_caller]
fn is_authorization_failure(curl: &Curl) {
    assert_eq!(curl.status, "403", "{curl:?}");
    let start = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthorizationFailure</Code><Message>This \
                 request is not authorized to perform this operation.\nRequestId:";
    let rest = curl.body.split_once(start).map(|(_, rest)| rest).unwrap_or_else(|| panic!("{curl:?}"));
    let (id, time) = rest.split_once("\nTime:").unwrap_or_else(|| panic!("{curl:?}"));
    assert_eq!(id.len(), 36, "{curl:?}");
    assert!(time.ends_with("Z</Message></Error>"), "{curl:?}");
}

#[test]
fn plain_http_hears_the_403_of_azure_storage() {
    on_both("403", SECURED, |lab| {
        let curl = curl(lab, JUMPBOX, &format!("-i http://{BACKUP}/container/blob"));
        is_authorization_failure(&curl);
        for header in ["Content-Type: application/xml\r\n", "x-ms-error-code: AuthorizationFailure\r\n"] {
            assert!(curl.body.contains(header), "{curl:?}");
        }
        let log = std::fs::read_to_string(lab.own_file(&format!("{}.log", lab.netns("secured-backup"))));
        assert!(log.expect("a log").contains(" contosobackup 403 203.0.113.200 AuthorizationFailure"));
    });
}

#[test]
fn s1_over_the_endpoint_a_virtual_network_rule_admits_by_private_address() {
    on_both("s1", SECURED, |lab| {
        assert_eq!(curl(lab, APP, &format!("https://{BACKUP}/")).source(), "10.1.1.4");
    });
}

#[test]
fn s2_over_the_endpoint_an_ip_rule_admits_nobody() {
    let rule = r#"firewall = { default_action = "Deny", answering_port = 8403, ip_rules = ["203.0.113.200"] }"#;
    on_both("s2", &secured(FIREWALL, rule), |lab| {
        ended_at_once(lab, APP, &format!("https://{BACKUP}/"), &[7]);
        is_authorization_failure(&curl(lab, APP, &format!("http://{BACKUP}/")));
        assert_eq!(curl(lab, JUMPBOX, &format!("https://{BACKUP}/")).source(), "203.0.113.200", "without it, it does");
    });
}

#[test]
fn s3_without_the_endpoint_a_virtual_network_rule_admits_nobody() {
    let rule = FIREWALL.replace("\"spoke/app\"", "\"spoke/jumpbox\", ignore_missing_endpoint = true");
    on_both("s3", &secured(FIREWALL, &rule), |lab| {
        ended_at_once(lab, JUMPBOX, &format!("https://{BACKUP}/"), &[7]);
        is_authorization_failure(&curl(lab, JUMPBOX, &format!("http://{BACKUP}/")));
    });
}

#[test]
fn prohibited_says_so_to_the_kernel() {
    let prohibited = r#"firewall = { default_action = "Deny", denial = "prohibited" }"#;
    on_both("prohibited", &secured(FIREWALL, prohibited), |lab| {
        let curl = ended_at_once(lab, APP, &format!("-v https://{BACKUP}/"), &[7]);
        assert!(curl.said.contains("failed: No route to host"), "{curl:?}");
    });
}

#[test]
fn s10_a_policy_lets_in_one_of_two_accounts_of_an_address() {
    on_both("s10", SECURED, |lab| {
        assert_eq!(curl(lab, APP, &format!("https://{CONTOSO}/")).source(), "10.1.1.4");
        assert_eq!(curl(lab, APP, &format!("http://{CONTOSO}/")).source(), "10.1.1.4");
        ended_at_once(lab, APP, &format!("https://{FABRIKAM}/"), &[35]);
        ended_at_once(lab, APP, &format!("http://{FABRIKAM}/"), &[56]);
        // The name decides, not the address: another name's certificate is not asked for first.
        let lie = format!("--connect-to {FABRIKAM}::{CONTOSO}: https://{FABRIKAM}/");
        ended_at_once(lab, APP, &lie, &[35]);
        ended_at_once(lab, APP, "-k https://20.60.1.20/", &[35]);
    });
}

#[test]
fn n1_a_tag_rule_lets_storage_through_a_denied_internet() {
    on_both("n1", SECURED, |lab| {
        assert_eq!(curl(lab, APP, &format!("https://{CONTOSO}/")).source(), "10.1.1.4");
        let curl = curl(lab, APP, "--connect-timeout 1 https://www.example.com/");
        assert_eq!(curl.code, Some(28), "a security group drops without a word: {curl:?}");
    });
}

#[test]
fn a_large_download_through_a_policy_is_whole() {
    const LENGTH: u64 = 96 << 20;
    on_both("large", SECURED, |lab| {
        let curl = curl(
            lab,
            APP,
            &format!("-o /dev/null -w |%{{size_download}}|%{{http_code}} https://{CONTOSO}/bytes/{LENGTH}"),
        );
        assert_eq!((curl.body.as_str(), curl.status.as_str()), (format!("|{LENGTH}").as_str(), "200"), "{curl:?}");
    });
}
