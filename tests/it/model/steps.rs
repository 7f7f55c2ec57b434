//! What may be asked, how it ends by the model, and what it changes there.

use serde_json::{Value, json};

use super::book::{Asked, Book, Form, Member, Submission};
use crate::kit::{Dice, PASSWORD, Reply, name_schema};

/// Few, so that requests meet each other.
const FORMS_MAX: usize = 6;
const SUBMISSIONS_MAX: usize = 25;
const MEMBERS_MAX: usize = 4;
const ROLES: [&str; 3] = ["viewer", "member", "admin"];

/// A request, by what it is about.
#[derive(Debug, Clone)]
pub enum Step {
    CreateForm {
        title: String,
    },
    RenameForm {
        form: String,
        title: String,
    },
    ArchiveForm {
        form: String,
    },
    Submit {
        form: String,
        name: String,
    },
    Change {
        form: String,
        id: String,
        name: String,
    },
    Remove {
        form: String,
        id: String,
    },
    Approve {
        form: String,
        id: String,
    },
    Comment {
        form: String,
        id: String,
        text: String,
    },
    /// Of a submission that is gone.
    ChangeGone {
        form: String,
        id: String,
    },
    AddMember {
        email: String,
        role: &'static str,
    },
    ChangeRole {
        id: String,
        role: &'static str,
    },
    RemoveMember {
        id: String,
    },
}

fn pick<'a, T>(dice: &mut Dice, from: &'a [T]) -> Option<&'a T> {
    let at = dice.below(from.len().max(1) as u64);
    from.get(usize::try_from(at).expect("small"))
}

impl Step {
    /// Any request that makes sense for the tenant as it is.
    pub fn thrown(book: &Book, dice: &mut Dice) -> Self {
        let serial = dice.next();
        let forms: Vec<_> = book.forms.iter().collect();
        let members: Vec<_> = book.members.keys().collect();
        let create = || Self::CreateForm { title: format!("Form {serial}") };
        let Some((form, state)) = pick(dice, &forms).copied() else { return create() };
        let (form, name) = (form.clone(), format!("name {serial}"));
        let submit = || Self::Submit { form: form.clone(), name: name.clone() };
        let submissions: Vec<_> = state.submissions.keys().collect();
        let Some(id) = pick(dice, &submissions).map(|id| (*id).clone()) else {
            return if state.is_archived { create() } else { submit() };
        };
        let role = *pick(dice, &ROLES).expect("roles");
        match dice.below(40) {
            0..=1 if forms.len() < FORMS_MAX => create(),
            2..=4 => Self::RenameForm { form, title: name },
            5 => Self::ArchiveForm { form },
            6..=9 => Self::Remove { form, id },
            10..=12 => Self::Approve { form, id },
            13..=17 => Self::Comment { form, id, text: name },
            18..=19 => match pick(dice, &book.gone) {
                Some((form, id)) => Self::ChangeGone { form: form.clone(), id: id.clone() },
                None => submit(),
            },
            20 if members.len() < MEMBERS_MAX => {
                // Now and then somebody who is there already.
                let known = pick(dice, &members).filter(|_| serial.is_multiple_of(3));
                let email = known.map(|id| book.members[*id].email.clone());
                Self::AddMember { email: email.unwrap_or(format!("m{serial}@it.example")), role }
            }
            21..=22 => match pick(dice, &members) {
                Some(id) => Self::ChangeRole { id: (*id).clone(), role },
                None => submit(),
            },
            23 => match pick(dice, &members) {
                Some(id) => Self::RemoveMember { id: (*id).clone() },
                None => submit(),
            },
            24..=29 if submissions.len() < SUBMISSIONS_MAX => submit(),
            _ => Self::Change { form, id, name },
        }
    }

    /// The request itself, with a guess at the version where one may be named.
    pub fn asked(&self, book: &Book, dice: &mut Dice) -> Asked {
        let key = Some(format!("key-{:016x}", dice.next()));
        let asked = |method, body: Option<Value>| Asked {
            method,
            path: self.path(),
            body,
            if_match: None,
            key: None,
            by_deputy: false,
        };
        match self {
            Self::CreateForm { title } => Asked {
                key,
                ..asked("POST", Some(json!({"title": title, "schema": name_schema()})))
            },
            Self::Submit { name, .. } => {
                Asked { key, ..asked("POST", Some(json!({"data": {"name": name}}))) }
            }
            Self::Comment { text, .. } => {
                Asked { key, ..asked("POST", Some(json!({"text": text}))) }
            }
            Self::AddMember { email, role } => {
                let body = json!({"email": email, "role": role, "password": PASSWORD});
                Asked { key, ..asked("POST", Some(body)) }
            }
            Self::RenameForm { title, .. } => {
                let if_match = guess(self.version(book), dice);
                Asked { if_match, ..asked("PATCH", Some(json!({"title": title}))) }
            }
            Self::Change { name, .. } => {
                let if_match = guess(self.version(book), dice);
                Asked { if_match, ..asked("PATCH", Some(json!({"data": {"name": name}}))) }
            }
            Self::ChangeGone { .. } => asked("PATCH", Some(json!({"data": {"name": "late"}}))),
            Self::ChangeRole { role, .. } => {
                let if_match = guess(self.version(book), dice);
                Asked { if_match, ..asked("PATCH", Some(json!({"role": role}))) }
            }
            Self::ArchiveForm { .. } | Self::Remove { .. } => {
                Asked { if_match: guess(self.version(book), dice), ..asked("DELETE", None) }
            }
            Self::Approve { .. } => {
                // Of what was changed since, the version has to be named.
                let version = self.version(book);
                let stale = u64::from(dice.below(4) == 0);
                Asked {
                    if_match: version.map(|version| version + stale),
                    by_deputy: true,
                    ..asked("POST", Some(json!({})))
                }
            }
            Self::RemoveMember { .. } => asked("DELETE", None),
        }
    }

    /// Where it goes.
    fn path(&self) -> String {
        match self {
            Self::CreateForm { .. } => "/v1/forms".to_owned(),
            Self::AddMember { .. } => "/v1/members".to_owned(),
            Self::Submit { form, .. } => format!("/v1/forms/{form}/submissions"),
            Self::Comment { form, id, .. } => format!("/v1/forms/{form}/submissions/{id}/comment"),
            Self::Approve { form, id } => format!("/v1/forms/{form}/submissions/{id}/approve"),
            _ => self.looked_at(),
        }
    }

    /// Where one sees whether it was done.
    pub fn looked_at(&self) -> String {
        match self {
            Self::RenameForm { form, .. } | Self::ArchiveForm { form } => {
                format!("/v1/forms/{form}")
            }
            Self::Change { form, id, .. }
            | Self::Remove { form, id }
            | Self::Approve { form, id }
            | Self::ChangeGone { form, id } => format!("/v1/forms/{form}/submissions/{id}"),
            Self::ChangeRole { id, .. } | Self::RemoveMember { id } => format!("/v1/members/{id}"),
            other => panic!("{other:?} has a key"),
        }
    }

    /// The version of what it is about.
    fn version(&self, book: &Book) -> Option<u64> {
        match self {
            Self::RenameForm { form, .. } | Self::ArchiveForm { form } => {
                Some(book.forms[form].version)
            }
            Self::Change { form, id, .. }
            | Self::Remove { form, id }
            | Self::Approve { form, id } => Some(book.forms[form].submissions[id].version),
            Self::ChangeRole { id, .. } => Some(book.members[id].version),
            _ => None,
        }
    }

    /// How it ends.
    pub fn status(&self, book: &Book, asked: &Asked) -> u16 {
        let is_stale = asked.if_match.is_some() && asked.if_match != self.version(book);
        let is_archived = |form: &String| book.forms[form].is_archived;
        let is_decided =
            |form: &String, id: &String| book.forms[form].submissions[id].status != "submitted";
        match self {
            Self::CreateForm { .. } | Self::Comment { .. } => 201,
            Self::Submit { form, .. } => {
                if is_archived(form) {
                    409
                } else {
                    201
                }
            }
            Self::AddMember { email, .. } => {
                let is_here = book.members.values().any(|member| member.email == *email);
                if is_here { 409 } else { 201 }
            }
            Self::ChangeGone { .. } => 404,
            _ if is_stale => 412,
            Self::RenameForm { form, .. } => {
                if is_archived(form) {
                    409
                } else {
                    200
                }
            }
            Self::Change { form, id, .. } | Self::Approve { form, id } => {
                if is_decided(form, id) {
                    409
                } else {
                    200
                }
            }
            Self::ChangeRole { .. } => 200,
            Self::ArchiveForm { .. } | Self::Remove { .. } | Self::RemoveMember { .. } => 204,
        }
    }

    /// Whether what is seen now shows that it was done.
    pub fn was_done(&self, book: &Book, seen: &Reply) -> bool {
        match self {
            Self::Remove { .. } | Self::RemoveMember { .. } => seen.status == 404,
            _ => seen.json()["version"].as_u64() != self.version(book),
        }
    }

    /// Takes it into the model. Says what of the answer is not as it should be.
    pub fn apply(&self, book: &mut Book, asked: &Asked, reply: &Reply) -> Result<(), String> {
        let answer: Value =
            if reply.status < 300 && !reply.body.is_empty() { reply.json() } else { Value::Null };
        let shows = |name: &str, wanted: Value| match answer.get(name) {
            Some(found) if *found != wanted => Err(format!("{name} is not {wanted}")),
            _ => Ok(()),
        };
        let id = || answer["id"].as_str().map(str::to_owned).ok_or("it has no id");
        match self {
            Self::CreateForm { title } => {
                let (title, submissions) = (title.clone(), Default::default());
                let form = Form { title, version: 1, is_archived: false, submissions };
                if book.forms.insert(id()?, form).is_some() {
                    return Err("its id was given before".to_owned());
                }
                book.count("form.create");
                shows("version", json!(1))
            }
            Self::RenameForm { form, title } => {
                book.count("form.update");
                let form = book.form(form);
                (form.title, form.version) = (title.clone(), form.version + 1);
                shows("version", json!(form.version)).and(shows("title", json!(title)))
            }
            Self::ArchiveForm { form } => {
                if !book.form(form).is_archived {
                    book.count("form.archive");
                    let form = book.form(form);
                    (form.is_archived, form.version) = (true, form.version + 1);
                }
                shows("status", json!("archived"))
            }
            Self::Submit { form, name } => {
                let (name, comments) = (name.clone(), Vec::new());
                let made = Submission { name, version: 1, status: "submitted", comments };
                book.count("submission.create");
                match book.form(form).submissions.insert(id()?, made) {
                    Some(_) => Err("its id was given before".to_owned()),
                    None => shows("version", json!(1)),
                }
            }
            Self::Change { form, id, name } => {
                book.count("submission.update");
                let submission = book.submission(form, id);
                (submission.name, submission.version) = (name.clone(), submission.version + 1);
                shows("version", json!(submission.version))
                    .and(shows("data", json!({"name": name})))
            }
            Self::Approve { form, id } => {
                book.count("submission.approve");
                let submission = book.submission(form, id);
                (submission.status, submission.version) = ("approved", submission.version + 1);
                shows("version", json!(submission.version)).and(shows("status", json!("approved")))
            }
            _ => self.apply_rest(book, asked, id().ok()),
        }
    }

    fn apply_rest(
        &self,
        book: &mut Book,
        asked: &Asked,
        made: Option<String>,
    ) -> Result<(), String> {
        match self {
            Self::Remove { form, id } => {
                book.count("submission.delete");
                book.form(form).submissions.remove(id);
                book.gone.push((form.clone(), id.clone()));
            }
            Self::Comment { form, id, text } => {
                book.count("submission.comment");
                let comments = &mut book.submission(form, id).comments;
                comments.push(text.clone());
                comments.sort();
            }
            Self::AddMember { email, role } => {
                let (email, role) = (email.clone(), (*role).to_owned());
                let member = Member { email, role, version: 1 };
                book.members.insert(made.ok_or("it has no id")?, member);
                book.count("member.add");
            }
            Self::ChangeRole { id, role } => {
                let member = book.members.get_mut(id).ok_or("it is nobody")?;
                if member.role != *role {
                    (member.role, member.version) = ((*role).to_owned(), member.version + 1);
                    book.count("member.role_change");
                }
            }
            Self::RemoveMember { id } => {
                book.members.remove(id);
                book.count("member.remove");
            }
            other => return Err(format!("the model does not know {other:?} of {asked:?}")),
        }
        Ok(())
    }
}

/// The version, or none, or one that is not current.
fn guess(version: Option<u64>, dice: &mut Dice) -> Option<u64> {
    match dice.below(5) {
        0 => None,
        1 => version.map(|version| version + 1),
        2 => version.map(|version| version.saturating_sub(1)).filter(|version| *version > 0),
        _ => version,
    }
}
