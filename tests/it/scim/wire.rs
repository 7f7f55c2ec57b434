//! What comes over the wire: the forms that directories really send, and those that nobody should.

use super::*;

#[test]
fn a_person_is_made_read_replaced_changed_and_removed() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let body = json!({
        "schemas": [USER, "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
        "UserName": " Bob@Example.ORG ", "externalId": "00u1", "displayName": "Bob Byrd",
        "name": {"givenName": "Bob", "familyName": "Byrd"}, "title": "Not kept", "id": "ignored",
        "emails": [{"value": "bob@home.example", "type": "home"}],
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "Not kept"},
    });
    let sent = body.to_string();
    let made = key.send(
        "POST",
        "/scim/v2/Users",
        Some("application/scim+json; charset=utf-8"),
        sent.as_bytes(),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("content-type"), Some("application/scim+json"));
    assert_eq!(made.header("etag"), Some("W/\"1\""));
    let (id, user) = (made.str("/id"), made.json());
    let location = format!("{}/scim/v2/Users/{id}", world.client.base);
    assert_eq!(made.header("location"), Some(&*location));
    assert_eq!(
        (&user["meta"]["location"], &user["meta"]["version"]),
        (&json!(location), &json!("W/\"1\""))
    );
    assert_eq!(
        (&user["userName"], &user["externalId"]),
        (&json!("bob@example.org"), &json!("00u1"))
    );
    assert_eq!(user["active"], true);
    assert!(user.get("title").is_none() && user.get("password").is_none());

    let place = format!("/scim/v2/Users/{id}");
    let stale = key.with_header("if-match", "W/\"7\"");
    let body = json!({"schemas": [USER], "userName": "bob@example.org", "displayName": "B"});
    assert_eq!(refused(&stale.call("PUT", &place, Some(&body))).0, 412);
    let put = key.with_header("if-match", "W/\"1\"").put(&place, body, 200);
    assert_eq!((put.header("etag"), put.json().get("name")), (Some("W/\"2\""), None));
    let part = key.get(&format!("{place}?attributes=displayName,name.givenName"), 200).json();
    assert_eq!(part, json!({"schemas": [USER], "id": id, "displayName": "B"}));
    let rest =
        key.get(&format!("{place}?excludedAttributes=meta.location,displayName"), 200).json();
    assert!(rest.get("displayName").is_none() && rest["meta"].get("location").is_none());
    assert_eq!(rest["meta"]["resourceType"], "User");
    key.delete(&place, 204);
    assert_eq!(refused(&key.get(&place, 404)).0, 404);
}

#[test]
fn addresses_and_names_of_teams_are_there_once_and_odd_ones_never() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    provision(&key, "bob@example.org");
    let create = |name: &str| {
        key.call("POST", "/scim/v2/Users", Some(&json!({"schemas": [USER], "userName": name})))
    };
    for taken in ["bob@example.org", "BOB@EXAMPLE.org", "owner@acme.example"] {
        assert_eq!(refused(&create(taken)), (409, "uniqueness".to_owned()), "{taken}");
    }
    // Looking alike, joined, turned round, full width: none becomes a second Bob.
    for odd in [
        "b\u{43e}b@example.org",
        "bob@ex\u{430}mple.org",
        "\u{202e}bob@example.org",
        "ｂob@example.org",
        "bo\u{200d}b@example.org",
        "bob",
        "",
        "a@b@c",
    ] {
        assert_eq!(refused(&create(odd)), (400, "invalidValue".to_owned()), "{odd:?}");
    }
    let group =
        |name: &str| key.call("POST", "/scim/v2/Groups", Some(&json!({"displayName": name})));
    assert_eq!(group("Sales").status, 201);
    assert_eq!(refused(&group("sALES")), (409, "uniqueness".to_owned()));
    let cy = provision(&key, "cy@example.org");
    let rename = json!([{"op": "Replace", "path": "userName", "value": "bob@example.org"}]);
    assert_eq!(
        refused(&patch(&key, &format!("Users/{cy}"), rename)),
        (409, "uniqueness".to_owned())
    );
}

#[test]
fn changes_come_in_the_forms_that_okta_and_entra_id_send() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let id = provision(&key, "bob@example.org");
    let change = |operations: Value| {
        let reply = patch(&key, &format!("Users/{id}"), operations);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    // Entra ID: operations with a capital, paths into values that are not there yet, texts for booleans.
    let user = change(json!([
        {"op": "Add", "path": "emails[type eq \"work\"].value", "value": "bob@work.example"},
        {"op": "Replace", "path": "name.givenName", "value": "Robert"},
        {"op": "Add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department", "value": "X"},
        {"op": "Replace", "path": "active", "value": "False"},
    ]));
    assert_eq!(user["emails"], json!([{"type": "work", "value": "bob@work.example"}]));
    assert_eq!((&user["name"]["givenName"], &user["active"]), (&json!("Robert"), &json!(false)));
    let user = change(json!([{"op": "replace", "value": {
        "active": "True", "name.familyName": "Byrd", "emails[type eq \"work\"].value": "b@work.example", "id": id,
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "Y"},
    }}]));
    assert_eq!(user["name"], json!({"givenName": "Robert", "familyName": "Byrd"}));
    assert_eq!(
        (&user["emails"][0]["value"], &user["active"]),
        (&json!("b@work.example"), &json!(true))
    );
    // Okta: a value without a path.
    let user = change(json!([{"op": "replace", "value": {"active": false}}]));
    assert_eq!(user["active"], false);
    let user = change(
        json!([{"op": "remove", "path": "name.familyName"}, {"op": "remove", "path": "emails[type eq \"work\"]"}]),
    );
    assert_eq!((user["name"].get("familyName"), user.get("emails")), (None, None));
    for (operation, kind) in [
        (
            json!({"op": "replace", "path": "emails[type eq \"fax\"].value", "value": "x@y.example"}),
            "noTarget",
        ),
        (json!({"op": "remove"}), "noTarget"),
        (json!({"op": "replace", "path": "id", "value": "x"}), "mutability"),
        (json!({"op": "replace", "path": "shoeSize", "value": "x"}), "invalidPath"),
        (json!({"op": "replace", "path": "name[", "value": "x"}), "invalidPath"),
        (json!({"op": "move", "path": "name"}), "invalidSyntax"),
        (json!({"op": "replace", "path": "active", "value": "perhaps"}), "invalidValue"),
        (json!({"op": "remove", "path": "userName"}), "invalidValue"),
    ] {
        let reply = patch(&key, &format!("Users/{id}"), json!([operation]));
        assert_eq!(refused(&reply), (400, kind.to_owned()), "{operation}");
    }
}

#[test]
fn members_of_a_team_come_and_go_one_by_one() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let ids: Vec<_> =
        ["a", "b", "c"].map(|name| provision(&key, &format!("{name}@example.org"))).into();
    let body = json!({"displayName": "Sales", "externalId": "g1", "members": [{"value": ids[0]}]});
    let team = key.post("/scim/v2/Groups", body, 201).str("/id");
    let change = |operations: Value| {
        let reply = patch(&key, &format!("Groups/{team}"), operations);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let group = reply.json();
        let members = group["members"].as_array().cloned().unwrap_or_default();
        members
            .iter()
            .map(|one| one["value"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    let add =
        json!([{"op": "Add", "path": "members", "value": [{"value": ids[1]}, {"value": ids[0]}]}]);
    assert_eq!(change(add), ids[..2]);
    assert_eq!(change(json!([{"op": "add", "value": {"members": [{"value": ids[2]}]}}])), ids);
    let gone = format!("members[value eq \"{}\"]", ids[0]);
    assert_eq!(
        change(json!([{"op": "remove", "path": gone}, {"op": "remove", "path": gone}])),
        ids[1..]
    );
    // Entra ID names the values to be removed beside the path.
    assert_eq!(
        change(json!([{"op": "Remove", "path": "members", "value": [{"value": ids[1]}]}])),
        ids[2..]
    );
    assert_eq!(
        change(json!([{"op": "replace", "path": "members", "value": [{"value": ids[0]}]}])),
        ids[..1]
    );
    key.delete(&format!("/scim/v2/Users/{}", ids[0]), 204);
    assert_eq!(
        change(json!([{"op": "replace", "value": {"id": team, "displayName": "Sold"}}])),
        Vec::<String>::new()
    );
    let listed = acme.owner.get(&format!("/v1/teams/{team}"), 200);
    assert_eq!(listed.str("/name"), "Sold");
    let found = key
        .get("/scim/v2/Groups?filter=externalId%20eq%20%22g1%22&excludedAttributes=members", 200)
        .json();
    assert_eq!((&found["totalResults"], &found["Resources"][0]["id"]), (&json!(1), &json!(team)));
    key.delete(&format!("/scim/v2/Groups/{team}"), 204);
    acme.owner.get(&format!("/v1/teams/{team}"), 404);
}

#[test]
fn filters_find_what_they_say_and_pages_count_from_one() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    for (name, given, external) in
        [("ann", "Ann", "X1"), ("bob", "Bob", "x2"), ("cy", "Cyril", "x3")]
    {
        let body = json!({"schemas": [USER], "userName": format!("{name}@example.org"), "externalId": external,
            "name": {"givenName": given}, "active": name != "cy",
            "emails": [{"value": format!("{name}@work.example"), "type": "work"}]});
        key.post("/scim/v2/Users", body, 201);
    }
    for (filter, names) in [
        (r#"userName eq "BOB@example.org""#, &["bob"][..]),
        (r#"username EQ "bob@example.org" and active eq false"#, &[]),
        (r#"externalId eq "x1""#, &[]),
        (r#"externalId eq "X1" or name.givenName sw "bo""#, &["ann", "bob"]),
        (r#"active eq false"#, &["cy"]),
        (r#"active eq "False""#, &["cy"]),
        (r#"name.givenName co "Y" or name.givenName ew "NN""#, &["ann", "cy"]),
        (r#"externalId pr and not (name.givenName eq "bob")"#, &["ann", "cy"]),
        (r#"emails[type eq "work" and value co "bob"]"#, &["bob"]),
        (r#"emails.value eq "cy@work.example""#, &["cy"]),
        (r#"emails eq "cy@work.example""#, &["cy"]),
        (r#"userName gt "b" and userName lt "c""#, &["bob"]),
        (r#"urn:ietf:params:scim:schemas:core:2.0:User:userName sw "ann""#, &["ann"]),
        (r#"externalId ne "x2" and name pr"#, &["ann", "cy"]),
        (r#"meta.created gt "2020-01-01T00:00:00Z" and emails pr"#, &["ann", "bob", "cy"]),
        (r#"meta.created gt "2999-01-01T00:00:00Z""#, &[]),
        (r#"title eq "not kept""#, &[]),
    ] {
        let names: Vec<_> = names.iter().map(|name| format!("{name}@example.org")).collect();
        assert_eq!(found(&key, filter), names, "{filter}");
    }
    let all = key.get("/scim/v2/Users?startIndex=2&count=2", 200).json();
    assert_eq!(
        (&all["totalResults"], &all["startIndex"], &all["itemsPerPage"]),
        (&json!(4), &json!(2), &json!(2))
    );
    assert_eq!(all["Resources"][0]["userName"], "ann@example.org");
    let none = key.get("/scim/v2/Users?count=0&startIndex=-5", 200).json();
    assert_eq!((&none["totalResults"], &none["startIndex"]), (&json!(4), &json!(1)));
    key.post("/scim/v2/Groups", json!({"displayName": "Team"}), 201);
    let search = json!({"schemas": [], "filter": r#"displayName eq "team" or userName sw "a""#});
    // Each kind has its own names, so what only one has is asked of that one.
    key.post("/scim/v2/.search", search, 200);
    let both = key.post("/scim/v2/.search", json!({"schemas": [], "count": 10}), 200).json();
    assert_eq!(both["totalResults"], 5);
    assert_eq!(both["Resources"][4]["displayName"], "Team");
}

#[test]
fn what_is_too_deep_too_large_or_no_filter_is_refused() {
    let world = World::start();
    let acme = world.tenant("acme");
    let key = directory(&acme);
    let search = |filter: &str| {
        key.call("POST", "/scim/v2/Users/.search", Some(&json!({"schemas": [], "filter": filter})))
    };
    let deep = format!("{}userName pr{}", "(".repeat(100), ")".repeat(100));
    let negated = format!("{}userName pr{}", "not (".repeat(100), ")".repeat(100));
    let long = vec!["userName pr"; 1_000].join(" or ");
    for filter in [
        &*deep,
        &negated,
        &long,
        "",
        "userName",
        "userName eq",
        "shoeSize eq 1",
        "groups.value eq \"x\"",
        "userName eq \"x",
        "name[givenName eq \"a\"",
    ] {
        let reply = search(filter);
        assert_eq!(refused(&reply), (400, "invalidFilter".to_owned()), "{filter:.40}");
    }
    assert_eq!(refused(&key.get("/scim/v2/Users?count=many", 400)).1, "invalidValue");
    assert_eq!(refused(&key.get("/scim/v2/Users?attributes=id&excludedAttributes=id", 400)).0, 400);
    assert_eq!(refused(&key.get("/scim/v2/Users?colour=red", 400)).0, 400);
    let huge =
        json!({"schemas": [USER], "userName": "x@y.example", "displayName": "x".repeat(500_000)});
    assert_eq!(refused(&key.call("POST", "/scim/v2/Users", Some(&huge))).0, 413);
    let wide =
        json!({"schemas": [USER], "userName": "x@y.example", "displayName": "x".repeat(300)});
    assert_eq!(refused(&key.call("POST", "/scim/v2/Users", Some(&wide))).1, "invalidValue");
    let nested = format!("{}{}", "{\"name\":".repeat(100), "}".repeat(100));
    let reply =
        key.send("POST", "/scim/v2/Users", Some("application/scim+json"), nested.as_bytes());
    assert_eq!(refused(&reply), (400, "invalidSyntax".to_owned()));
    let many: Vec<_> =
        (0..1_001).map(|_| json!({"op": "add", "path": "active", "value": true})).collect();
    let id = provision(&key, "z@y.example");
    assert_eq!(refused(&patch(&key, &format!("Users/{id}"), json!(many))).1, "invalidSyntax");
    let text = key.send("POST", "/scim/v2/Users", Some("text/plain"), b"{}");
    assert_eq!(refused(&text).0, 415);
    assert_eq!(refused(&world.client.get("/scim/v2/Users", 401)).0, 401);
    assert_eq!(refused(&world.client.get("/scim/v3/Users", 404)).0, 404);
    assert_eq!(refused(&key.call("POST", "/scim/v2/Bulk", Some(&json!({})))).0, 404);
    let verb = world.client.call("POST", "/scim/v2/Schemas", None);
    assert_eq!((refused(&verb).0, verb.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn what_the_service_can_do_is_published_to_everybody() {
    let world = World::start();
    let config = world.client.get("/scim/v2/ServiceProviderConfig", 200).json();
    assert_eq!(
        (&config["patch"]["supported"], &config["bulk"]["supported"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(config["filter"], json!({"supported": true, "maxResults": 200}));
    let types = world.client.get("/scim/v2/ResourceTypes", 200).json();
    for kind in types["Resources"].as_array().expect("a list") {
        let schema = kind["schema"].as_str().expect("a schema");
        let schema = world.client.get(&format!("/scim/v2/Schemas/{schema}"), 200).json();
        assert_eq!(schema["name"], kind["name"]);
    }
    assert_eq!(refused(&world.client.get("/scim/v2/Schemas/urn:none", 404)).0, 404);
}
