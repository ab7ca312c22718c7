use super::*;

/// As SDK 3.10.1 sends it, shortened.
const START: &str = r#"{"trace": {"trace_info": {"trace_id": "tr-9ed74176d9636f11665bf7b17be87828", "client_request_id": "crid-0",
    "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "8812345"}},
    "request_time": "2026-11-29T19:34:54.751Z", "execution_duration": "0.767s", "state": "OK",
    "trace_metadata": {"mlflow.trace.session": "sess-1", "mlflow.trace_schema.version": "3"},
    "tags": {"mlflow.traceName": "teller", "color": "blue"}, "request_preview": "RQ preview"}}}"#;

const TRACE: &str = "tr-9ed74176d9636f11665bf7b17be87828";

#[test]
fn a_start_is_answered_with_itself_and_the_tags_that_sdks_read() {
    let (trace, experiment, start) = start(START.as_bytes()).unwrap();
    assert_eq!((trace.as_str(), experiment.as_str()), (TRACE, "8812345"));
    let answer = started(start.clone(), &trace, &experiment, true);
    let tags = &answer["trace"]["trace_info"]["tags"];
    assert_eq!(
        *tags,
        json!({"mlflow.traceName": "teller", "color": "blue",
            "mlflow.artifactLocation": format!("mlflow-artifacts:/8812345/traces/{TRACE}/artifacts"),
            "mlflow.trace.spansLocation": "TRACKING_STORE"})
    );
    assert_eq!(answer["trace"]["trace_info"]["client_request_id"], "crid-0");
    // Its spans were not seen: they may come as a file.
    let answer = started(start, &trace, &experiment, false);
    assert_eq!(answer.pointer("/trace/trace_info/tags/mlflow.trace.spansLocation"), None);
    let bare = json!({"trace": {"trace_info": {"trace_id": "tr-1"}}});
    assert_eq!(started(bare, "tr-1", "1", true)["trace"]["trace_info"]["tags"].as_object().unwrap().len(), 2);
    for broken in ["", "[]", "{}", r#"{"trace": {"trace_info": {"trace_id": 5}}}"#] {
        assert_eq!(super::start(broken.as_bytes()), None, "{broken}");
    }
}

#[test]
fn the_made_up_experiment_of_a_start_becomes_the_real_one() {
    let (_, _, mut start) = start(START.as_bytes()).unwrap();
    move_start(&mut start, "12");
    let text = start.to_string();
    assert!(text.contains(r#""experiment_id":"12""#) && !text.contains("8812345"), "{text}");
}

#[test]
fn a_late_start_takes_up_what_its_row_has_already() {
    let (_, _, mut start) = start(START.as_bytes()).unwrap();
    let row = json!({"trace": {"trace_info": {
        "trace_metadata": {"mlflow.trace.tokenUsage": "{}"},
        "tags": {"later": "tag", "color": "red", "mlflow.artifactLocation": "mlflow-artifacts:/workspaces/bank/12/traces/tr-1/artifacts"},
        "assessments": [{"assessment_id": "a-1"}],
    }}});
    assert!(!has_started(&row) && has_started(&start));
    assert_eq!(files(&row), Some("workspaces/bank/12/traces/tr-1/artifacts"));
    assert_eq!(files(&json!({"trace": {"trace_info": {"tags": {"mlflow.artifactLocation": "s3://bucket/1"}}}})), None);
    fold(&mut start, &row);
    let info = &start["trace"]["trace_info"];
    assert_eq!(info["tags"], json!({"mlflow.traceName": "teller", "color": "blue", "later": "tag"}));
    assert_eq!(info["assessments"], json!([{"assessment_id": "a-1"}]));
}

#[test]
fn an_assessment_gets_an_id_once() {
    let sent = br#"{"assessment": {"assessment_name": "good", "trace_id": "tr-1", "feedback": {"value": true}}}"#;
    let (id, body) = identify("tr-1", sent).unwrap();
    assert_eq!(body["assessment"]["assessment_id"], id);
    assert_eq!(body["assessment"]["feedback"], json!({"value": true}));
    assert_eq!(identify("tr-1", sent).unwrap().0, id);
    let own = br#"{"assessment": {"assessment_id": "a-5"}}"#;
    assert_eq!(identify("tr-1", own).unwrap().0, "a-5");
    assert_eq!(identify("tr-1", b"{}"), None);
}

#[test]
fn a_start_of_an_sdk_2_becomes_one_that_mlflow_takes_with_the_relays_id() {
    let sent = br#"{"experiment_id": "912", "timestamp_ms": 1795980742000,
        "request_metadata": [{"key": "mlflow.trace_schema.version", "value": "2"}], "tags": [{"key": "mlflow.user", "value": "root"}]}"#;
    let (id, start, answer) = start_v2("0af7651916cd43dd8448eb211c80319c", sent).unwrap();
    assert_eq!(id, "912");
    let info = &start["trace"]["trace_info"];
    assert_eq!(info["request_time"], "2026-11-29T19:32:22Z");
    assert_eq!((&info["tags"], &info["state"]), (&json!({"mlflow.user": "root"}), &json!("IN_PROGRESS")));
    assert_eq!(info["trace_metadata"], json!({"mlflow.trace_schema.version": "2"}));
    assert_eq!(super::start(start.to_string().as_bytes()).unwrap().0, "0af7651916cd43dd8448eb211c80319c");
    let info = &answer["trace_info"];
    assert_eq!(info["request_id"], "0af7651916cd43dd8448eb211c80319c");
    let place = "mlflow-artifacts:/912/traces/0af7651916cd43dd8448eb211c80319c/artifacts";
    assert_eq!(info["tags"][1], json!({"key": "mlflow.artifactLocation", "value": place}));
    assert_eq!(start_v2("0af7", b"{}"), None);
}
