//! The platform's acts: one record each, whoever asks and however often.

use std::future::Future;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::audit::entry::{Detail, Entry};
use crate::call::Paging;
use crate::env::Env;
use crate::host::Hosts;
use crate::permit::{Action, Carrier, Grant, UserPrincipal};
use crate::quota::{Plan, Plans};
use crate::supervisor::{Supervisor, SupervisorOptions};
use crate::tenant::audit::{AuditFilter, ListAudit};
use crate::tenant::directory::by_the_node;
use crate::tenant::factors::own::{BeginTotp, Checked, ConfirmTotp};
use crate::tenant::factors::totp;
use crate::tenant::members::AddMember;
use crate::tenant::profile::ReadProfile;
use crate::tenant::sessions::own::EndSession;
use crate::tenant::sessions::{Credential, OpenSession, Opened};

/// A node's tenants on a store in memory, with one platform administrator who is signed in.
struct Scene {
    store: Arc<Store>,
    tenants: Tenants,
    admin: Grant,
}

async fn start(store: &Arc<Store>) -> Tenants {
    let hosts = Hosts::new(1);
    hosts.start_here();
    let trial = Plan { days: Some(14), ..Plan::default() };
    let named = |name: &str, plan| (name.to_owned(), plan);
    let plans = [
        named("free", Plan::default()),
        named("trial", trial),
        named("enterprise", Plan::default()),
    ];
    let shared = Shared {
        env: Env::real(),
        plans: Arc::new(Plans(plans.into())),
        observers: Vec::new(),
        unlimited: Plan::default(),
    };
    let options = SupervisorOptions {
        store: store.clone(),
        shared: Arc::new(shared),
        hosts,
        region: "local".to_owned(),
        default_plan: "free".to_owned(),
    };
    Supervisor::start(options).await.unwrap()
}

fn grant(opened: &Opened) -> Grant {
    let Opened { user, session, role, authz, .. } = *opened;
    Grant::new(
        TenantId::PLATFORM,
        UserPrincipal { user, session, role, authz, carrier: Carrier::Token },
    )
}

/// Enrols the second factor that every administrator of the platform needs.
async fn enrol(platform: &TenantHandle, admin: Grant) -> Grant {
    let permit = || admin.permit(TenantId::PLATFORM).unwrap();
    let begin = BeginTotp { current_phc: Some("phc".to_owned()), shown: None };
    let begun = platform.command(permit(), Origin::default(), None, begin).await.unwrap().reply;
    let Checked::Done(begun) = begun else { panic!("no code was needed") };
    let code = totp::code_of(&begun.secret, totp::step_at(Env::real().now_ms()));
    let confirm = ConfirmTotp { code };
    let confirmed = platform.command(permit(), Origin::default(), None, confirm).await.unwrap();
    grant(&confirmed.reply.opened)
}

impl Scene {
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Self) -> F) {
        actix_rt::System::new().block_on(async {
            let store = Store::in_memory().unwrap();
            let tenants = start(&store).await;
            let platform = tenants.find(TenantId::PLATFORM).await.unwrap();
            let password_phc = "phc".to_owned();
            let email = "root@platform.example".to_owned();
            let add = AddMember { email, role: Role::PlatformAdmin, password_phc };
            let permit = by_test(TenantId::PLATFORM);
            let added = platform.command(permit, Origin::default(), None, add).await.unwrap();
            let credential = Credential { user: added.reply.0, password_phc: "phc".to_owned() };
            let permit = Permit::anonymous(TenantId::PLATFORM);
            let open = OpenSession { credential };
            let opened =
                platform.command(permit, Origin::default(), None, open).await.unwrap().reply;
            let admin = enrol(&platform, grant(&opened)).await;
            test(Self { store, tenants, admin }).await;
        });
    }

    /// The same store behind another node, as after a crash.
    async fn restart(&mut self) {
        self.tenants.stop().await;
        self.tenants = start(&self.store).await;
    }

    fn permit(&self) -> Permit<WriteTenants> {
        self.admin.permit(TenantId::PLATFORM).unwrap()
    }

    async fn create(
        &self,
        key: Option<Idempotency>,
        new: NewTenant,
    ) -> Result<Answered<Arc<TenantSummary>>, TenantError> {
        self.tenants.create(self.permit(), key, new).await
    }

    /// Takes a short name as `create` does, and goes no further: the node died there.
    async fn reserve(&self, key: Option<Idempotency>, new: NewTenant) -> TenantId {
        let row = DirectoryRow {
            id: self.tenants.0.parts.shared.env.new_id(),
            slug: new.slug,
            name: new.name,
            plan: new.plan.unwrap(),
            region: "local".to_owned(),
            standing: Standing::Active,
            created_ms: 1,
            erasure: None,
        };
        let plans = self.tenants.0.parts.shared.plans.clone();
        let reserve = ReserveTenant { row, unfounded: None, plans };
        let reserved = self.tenants.record(self.permit(), &new.origin, &key, reserve).await;
        reserved.unwrap().reply.id
    }

    async fn chain(&self, tenant: TenantId) -> Vec<Entry> {
        let door = self.tenants.find_any(tenant).await.unwrap();
        let paging = Paging { limit: 200, cursor: None };
        let filter = AuditFilter { action: Some("tenant.*".to_owned()), ..AuditFilter::default() };
        let list = ListAudit { filter, paging, oldest_first: true };
        let page = door.query(by_test(tenant), list).await.unwrap().page;
        page.items.iter().map(|item| serde_json::from_slice(item).unwrap()).collect()
    }

    /// What the platform's chain says beyond its own founding: who, what, and how it ended.
    async fn acts(&self) -> Vec<(String, String, &'static str)> {
        let entries = self.chain(TenantId::PLATFORM).await;
        let outcome = |entry: &Entry| match entry.outcome {
            crate::audit::entry::Outcome::Success => "success",
            crate::audit::entry::Outcome::Refused => "refused",
            crate::audit::entry::Outcome::Failed => "failed",
        };
        let told = |entry: &Entry| (entry.actor.id.clone(), entry.action.clone(), outcome(entry));
        entries.iter().skip(1).map(told).collect()
    }

    async fn plan_inside(&self, tenant: TenantId) -> Value {
        let door = self.tenants.find_any(tenant).await.unwrap();
        let profile = door.query(by_test(tenant), ReadProfile).await.unwrap();
        let profile: Value = serde_json::from_slice(&profile.json).unwrap();
        profile["plan"].clone()
    }

    fn by_admin(&self, action: &str, outcome: &'static str) -> (String, String, &'static str) {
        (self.admin.person().unwrap().user.to_string(), action.to_owned(), outcome)
    }
}

/// What nobody in particular may do.
fn by_test<A: Action>(tenant: TenantId) -> Permit<A> {
    Permit::internal(tenant, "test")
}

fn acme() -> NewTenant {
    let owner = NewOwner {
        email: "ann@acme.example".to_owned(),
        password_phc: "phc".to_owned(),
        is_to_verify: false,
    };
    NewTenant {
        slug: "acme".to_owned(),
        name: "Acme".to_owned(),
        plan: Some("free".to_owned()),
        owner: Some(owner),
        origin: Origin::default(),
    }
}

fn key(text: &str) -> Option<Idempotency> {
    Some(Idempotency { scope: text.to_owned(), fingerprint: [7; 32] })
}

#[test]
fn each_act_is_one_entry_in_the_name_of_the_administrator() {
    Scene::run(|scene| async move {
        let tenant = scene.create(None, acme()).await.unwrap().reply.id;
        let (tenants, from) = (&scene.tenants, Origin::default);
        let reason = Some("invoice 4711".to_owned());
        let suspended = tenants.suspend(scene.permit(), from(), None, tenant, reason).await;
        assert_eq!(suspended.unwrap().reply.standing, Standing::Suspended);
        assert!(matches!(tenants.find(tenant).await, Err(TenantError::Suspended)));
        let resumed = tenants.resume(scene.permit(), from(), None, tenant).await;
        assert_eq!(resumed.unwrap().reply.standing, Standing::Active);
        let moved =
            tenants.set_plan(scene.permit(), from(), None, tenant, "enterprise".to_owned()).await;
        assert_eq!(&*moved.unwrap().reply.plan, "enterprise");

        let actions = ["tenant.create", "tenant.suspend", "tenant.resume", "tenant.plan_change"];
        let expected: Vec<_> = actions.map(|action| scene.by_admin(action, "success")).into();
        assert_eq!(scene.acts().await, expected);
        let entries = scene.chain(TenantId::PLATFORM).await;
        assert!(entries[1..].iter().all(|entry| entry.target.id == tenant.to_string()));
        let detail = |at: usize, name: &str| entries[at].detail.get(name).cloned();
        assert_eq!(detail(2, "reason"), Some(Detail::from("invoice 4711")));
        assert_eq!(detail(4, "from"), Some(Detail::from("free")));
        assert_eq!(detail(4, "to"), Some(Detail::from("enterprise")));
    });
}

#[test]
fn a_repeated_key_gives_the_first_answer_and_has_no_second_effect() {
    Scene::run(|scene| async move {
        let first = scene.create(key("k"), acme()).await.unwrap();
        let tenant = first.reply.id;
        let from = Origin::default;
        scene.tenants.suspend(scene.permit(), from(), key("s"), tenant, None).await.unwrap();
        let again = scene.create(key("k"), acme()).await.unwrap();
        assert!(!first.replayed && again.replayed);
        assert_eq!(first.reply, again.reply);
        // The first answer is old news: the tenant stays suspended.
        let is = |standing| scene.tenants.summary(tenant).unwrap().standing == standing;
        assert!(is(Standing::Suspended));
        scene.tenants.resume(scene.permit(), from(), None, tenant).await.unwrap();
        let again = scene.tenants.suspend(scene.permit(), from(), key("s"), tenant, None).await;
        assert!(again.unwrap().replayed && is(Standing::Active));

        let actions = ["tenant.create", "tenant.suspend", "tenant.resume"];
        let expected: Vec<_> = actions.map(|action| scene.by_admin(action, "success")).into();
        assert_eq!(scene.acts().await, expected);
        assert_eq!((scene.tenants.count(), scene.chain(tenant).await.len()), (1, 1));
    });
}

#[test]
fn a_half_made_tenant_is_completed_by_the_same_request_without_a_key() {
    Scene::run(|mut scene| async move {
        let tenant = scene.reserve(None, acme()).await;
        scene.restart().await;
        let other = NewTenant { name: "Another".to_owned(), ..acme() };
        let refused = scene.create(None, other).await;
        assert!(matches!(refused, Err(TenantError::Conflict(Conflict::SlugTaken))));
        let made = scene.create(None, acme()).await.unwrap();
        assert_eq!((made.reply.id, scene.chain(tenant).await.len()), (tenant, 1));
        let taken = scene.create(None, acme()).await;
        assert!(matches!(taken, Err(TenantError::Conflict(Conflict::SlugTaken))));

        let outcomes = ["success", "refused", "success", "refused"];
        let expected: Vec<_> =
            outcomes.map(|outcome| scene.by_admin("tenant.create", outcome)).into();
        assert_eq!(scene.acts().await, expected);
    });
}

#[test]
fn a_half_made_tenant_is_completed_by_its_key_and_only_for_whoever_founded_it() {
    Scene::run(|mut scene| async move {
        let tenant = scene.reserve(key("mine"), acme()).await;
        scene.restart().await;
        let completed = scene.create(key("mine"), acme()).await.unwrap();
        assert_eq!((completed.reply.id, completed.replayed), (tenant, false));
        let again = scene.create(key("mine"), acme()).await.unwrap();
        assert_eq!((again.reply, again.replayed), (completed.reply, true));
        assert_eq!(scene.acts().await, [scene.by_admin("tenant.create", "success")]);

        let other = || NewTenant { slug: "other".to_owned(), ..acme() };
        scene.reserve(key("slow"), other()).await;
        scene.restart().await;
        scene.create(key("fast"), other()).await.unwrap();
        // Its owner is the other request's: this one must not be told that it made the tenant.
        let late = scene.create(key("slow"), other()).await;
        assert!(matches!(late, Err(TenantError::Conflict(Conflict::SlugTaken))));
    });
}

#[test]
fn equal_requests_at_the_same_time_make_one_tenant_and_one_success() {
    Scene::run(|scene| async move {
        let all = (0..8).map(|_| scene.create(None, acme()));
        let answers = futures_util::future::join_all(all).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        let acts = scene.acts().await;
        assert_eq!(acts.iter().filter(|act| act.2 == "success").count(), 1, "{acts:?}");
        assert_eq!((scene.tenants.count(), acts.len()), (1, 8));
    });
}

#[test]
fn a_plan_reaches_a_suspended_tenant_and_one_that_was_not_told_in_time() {
    Scene::run(|mut scene| async move {
        let tenant = scene.create(None, acme()).await.unwrap().reply.id;
        let from = Origin::default;
        scene.tenants.suspend(scene.permit(), from(), None, tenant, None).await.unwrap();
        let plan = || "enterprise".to_owned();
        scene.tenants.set_plan(scene.permit(), from(), None, tenant, plan()).await.unwrap();
        assert_eq!(scene.plan_inside(tenant).await, "enterprise");
        assert!(matches!(scene.tenants.find(tenant).await, Err(TenantError::Suspended)));

        // The platform's record alone, then the end of the node.
        let plans = scene.tenants.0.parts.shared.plans.clone();
        let change = DirectoryChange::Plan { plan: "trial".to_owned(), plans };
        let command = ChangeDirectory { tenant, change };
        scene.tenants.record(scene.permit(), &from(), &key("p"), command).await.unwrap();
        scene.restart().await;
        assert_eq!(scene.plan_inside(tenant).await, "enterprise");
        let again =
            || scene.tenants.set_plan(scene.permit(), from(), key("p"), tenant, "trial".to_owned());
        assert!(!again().await.unwrap().replayed);
        assert_eq!(scene.plan_inside(tenant).await, "trial");
        assert!(again().await.unwrap().replayed);
    });
}

#[test]
fn an_act_that_cannot_be_done_changes_nothing() {
    Scene::run(|scene| async move {
        let from = Origin::default;
        let absent = scene.tenants.0.parts.shared.env.new_id();
        let unknown = scene.tenants.suspend(scene.permit(), from(), None, absent, None).await;
        assert!(matches!(unknown, Err(TenantError::NotFound)));
        let gold = NewTenant { plan: Some("gold".to_owned()), ..acme() };
        assert!(matches!(scene.create(None, gold).await, Err(TenantError::Invalid(_))));
        let platform = scene.tenants.find(TenantId::PLATFORM).await.unwrap();
        let end = scene.admin.permit(TenantId::PLATFORM).unwrap();
        platform.command(end, from(), None, EndSession).await.unwrap();
        let stale = scene.create(None, acme()).await;
        assert!(matches!(stale, Err(TenantError::StaleCredential)));
        assert_eq!((scene.acts().await.len(), scene.tenants.count()), (0, 0));
        // What the node does by itself needs nobody's session.
        let made = scene.tenants.create(by_the_node("sign-up"), None, acme()).await.unwrap();
        assert_eq!(scene.acts().await[0].0, "sign-up");
        let elsewhere = by_test(made.reply.id);
        let foreign = scene.tenants.resume(elsewhere, from(), None, made.reply.id).await;
        assert!(matches!(foreign, Err(TenantError::NotFound)));
    });
}
