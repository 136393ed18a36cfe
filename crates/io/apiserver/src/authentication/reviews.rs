//! TokenReview and SelfSubjectReview: created, answered, never stored.

use super::User;
use super::tokens::{ISSUER, Tokens};
use crate::lookup::Lookup;
use crate::refusal::Refusal;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Answers a TokenReview in normal form.
///
/// # Errors
/// 400 without a token.
pub fn token_review(body: &Value, tokens: &Tokens, lookup: &dyn Lookup, now: Timestamp) -> Result<Value, Refusal> {
    let token = body["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<&str> =
        body["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let audiences = if asked.is_empty() { vec![ISSUER] } else { asked };
    let status = match tokens.authenticate(token, &audiences, lookup, now) {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user_info(&user), "audiences": audiences}),
        Err(refused) => json!({"user": {}, "error": refused.0}),
    };
    let mut answer = body.clone();
    answer["status"] = status;
    Ok(answer)
}

/// Answers a SelfSubjectReview of the given group version.
pub fn self_subject_review(api_version: &str, user: &User, now: Timestamp) -> Value {
    let created = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": api_version,
        "metadata": {"creationTimestamp": created},
        "status": {"userInfo": user_info(user)},
    })
}

/// `authentication.UserInfo`.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({});
    if !user.name.is_empty() {
        info["username"] = user.name.as_str().into();
    }
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
