//! The access-list rules, one test each, as pure decisions. Rules that need rows are tested with
//! the commands that use them.

use super::*;

const ACTIONS: [FormAction; 10] = FormAction::ALL;

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn team(n: u8) -> TeamId {
    TeamId::from_bytes([n; 16])
}

fn caller(role: Role) -> Caller {
    Caller {
        user: Some(user(1)),
        role,
        teams: Vec::new(),
        is_creator: false,
        is_service: false,
        is_support: false,
    }
}

fn grant(holder: Holder, level: Level) -> FormGrant {
    FormGrant { holder, level }
}

fn others() -> Vec<FormGrant> {
    vec![grant(Holder::User(user(9)), Level::Owner)]
}

fn is_ok(caller: &Caller, grants: &[FormGrant], action: FormAction) -> bool {
    decide(caller, grants, action).is_ok()
}

#[test]
fn without_grants_the_role_decides_and_charge_is_the_creators() {
    for role in Role::ALL {
        for (action, is_creator) in ACTIONS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
            let is_charge = matches!(action, FormAction::Manage | FormAction::Archive);
            let is_in_charge = is_creator || matches!(role, Role::Owner | Role::Admin);
            let expected = action.capability().roles.contains(role) && (!is_charge || is_in_charge);
            let asker = Caller { is_creator, ..caller(role) };
            assert_eq!(is_ok(&asker, &[], action), expected, "{role} {action:?} {is_creator}");
        }
    }
}

#[test]
fn having_made_a_restricted_form_allows_nothing() {
    let creator = Caller { is_creator: true, ..caller(Role::Member) };
    for action in ACTIONS {
        let refused = decide(&creator, &others(), action);
        assert!(matches!(refused, Err(TenantError::NotFound)), "{action:?}");
    }
}

#[test]
fn all_nine_kinds_of_grant_allow_exactly_their_column() {
    let asker = Caller { teams: vec![team(1)], ..caller(Role::Member) };
    let table = |level: Level| match level {
        Level::Owner => vec![true; 10],
        Level::Editor => vec![true, true, true, true, true, false, true, false, false, false],
        Level::Reviewer => vec![true, true, false, false, true, true, true, false, false, false],
    };
    for holder in [Holder::User(user(1)), Holder::Role(Role::Member), Holder::Team(team(1))] {
        for level in Level::ALL {
            let grants = [others(), vec![grant(holder, level)]].concat();
            let allowed: Vec<_> = ACTIONS.iter().map(|it| is_ok(&asker, &grants, *it)).collect();
            assert_eq!(allowed, table(level), "{holder:?} {level:?}");
        }
    }
}

#[test]
fn a_grant_never_lifts_a_viewer_to_write() {
    let grants = [grant(Holder::User(user(1)), Level::Owner)];
    let viewer = caller(Role::Viewer);
    assert!(is_ok(&viewer, &grants, FormAction::Read));
    for action in ACTIONS.into_iter().filter(|action| *action != FormAction::Read) {
        let refused = decide(&viewer, &grants, action);
        assert!(matches!(refused, Err(TenantError::Forbidden { .. })), "{action:?}");
    }
}

#[test]
fn a_grant_never_lifts_a_customer_beyond_reading_and_submitting() {
    let grants = [grant(Holder::Role(Role::Customer), Level::Owner)];
    let allowed: Vec<_> = ACTIONS
        .into_iter()
        .filter(|action| is_ok(&caller(Role::Customer), &grants, *action))
        .collect();
    // Changing submissions is further limited to their own by the command itself.
    assert_eq!(allowed, [FormAction::Read, FormAction::Submit, FormAction::EditSubmissions]);
}

#[test]
fn a_further_grant_never_takes_a_right_away() {
    let asker = caller(Role::Member);
    let reviewer = grant(Holder::Role(Role::Member), Level::Reviewer);
    let editor = grant(Holder::User(user(1)), Level::Editor);
    assert!(is_ok(&asker, &[reviewer], FormAction::Decide));
    assert!(is_ok(&asker, &[reviewer, editor], FormAction::Decide));
    assert!(is_ok(&asker, &[reviewer, editor], FormAction::Edit));
    assert!(!is_ok(&asker, &[reviewer, editor], FormAction::Manage));
}

#[test]
fn a_restricted_form_is_absent_for_people_without_a_grant() {
    for role in [Role::Member, Role::Viewer, Role::Customer] {
        for action in ACTIONS {
            let refused = decide(&caller(role), &others(), action);
            assert!(matches!(refused, Err(TenantError::NotFound)), "{role} {action:?}");
        }
        assert!(!is_listed(&caller(role), &others()));
    }
}

#[test]
fn a_tenant_owner_without_a_grant_manages_grants_and_reads_only_with_a_reason() {
    let owner = caller(Role::Owner);
    assert!(is_ok(&owner, &others(), FormAction::Manage));
    assert!(is_ok(&owner, &others(), FormAction::SeeGrants));
    let read = decide(&owner, &others(), FormAction::Read);
    assert!(matches!(read, Err(TenantError::ReasonNeeded)));
    for action in [FormAction::Edit, FormAction::Decide, FormAction::Archive, FormAction::Submit] {
        assert!(matches!(decide(&owner, &others(), action), Err(TenantError::Forbidden { .. })));
    }
}

#[test]
fn an_administrator_changes_grants_but_does_not_read() {
    let admin = caller(Role::Admin);
    assert!(is_ok(&admin, &others(), FormAction::Manage));
    let read = decide(&admin, &others(), FormAction::Read);
    assert!(matches!(read, Err(TenantError::Forbidden { .. })));
}

#[test]
fn a_team_grant_counts_only_for_its_members() {
    let grants = [grant(Holder::Team(team(1)), Level::Owner)];
    let stranger = Caller { teams: vec![team(2)], ..caller(Role::Member) };
    assert!(matches!(decide(&stranger, &grants, FormAction::Read), Err(TenantError::NotFound)));
}

#[test]
fn the_best_grant_is_the_highest_the_caller_holds() {
    let grants = [
        grant(Holder::User(user(9)), Level::Owner),
        grant(Holder::Role(Role::Member), Level::Reviewer),
        grant(Holder::User(user(1)), Level::Editor),
    ];
    assert_eq!(caller(Role::Member).best(&grants), Some(grants[2]));
    assert_eq!(caller(Role::Viewer).best(&grants[..2]), None);
}

#[test]
fn a_key_of_an_owner_breaks_no_glass() {
    let grants = [FormGrant { holder: Holder::User(user(9)), level: Level::Owner }];
    let owner = caller(Role::Owner);
    assert!(matches!(decide(&owner, &grants, FormAction::Read), Err(TenantError::ReasonNeeded)));
    let key = Caller { is_service: true, ..owner };
    assert!(matches!(decide(&key, &grants, FormAction::Read), Err(TenantError::Forbidden { .. })));
    let named = [FormGrant { holder: Holder::User(user(1)), level: Level::Reviewer }];
    assert!(
        decide(&key, &named, FormAction::Read).is_ok(),
        "a grant to who made it is one to the key"
    );
}

#[test]
fn every_action_and_level_is_in_its_list_once() {
    let mut names: Vec<_> = FormAction::ALL.iter().map(|action| action.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FormAction::ALL.len());
    assert!(FormAction::ALL.is_sorted_by_key(|action| *action as u8), "as declared");
    assert!(Level::ALL.is_sorted_by(|high, low| high > low));
    assert_eq!(FormAction::ReadAudit as usize + 1, FormAction::ALL.len(), "the last one");
}
