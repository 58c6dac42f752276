//! Topics: deleted, made anew, given more partitions.

use crate::*;

#[test]
fn a_deleted_topic_is_waited_for_and_the_others_lose_nothing() {
    let case = Case::new("topicdrop", postgres(), kafka());
    let (writer, watch, sluice) = (case.write(16), case.watch(), case.start(&[]));
    writer.wait_more(20, LIMIT);
    kafka().topics("delete", &[&case.topic(1)]);
    eventually(LIMIT, "it is not ready", || {
        sluice
            .http("/readyz")
            .is_ok_and(|(status, body)| status == 503 && body.contains("topicdrop.b"))
    });
    writer.wait_more(20, LIMIT);
    kafka().topic(&case.topic(1), 3);
    writer.wait_more(20, LIMIT);
    let model = writer.stop();
    case.wait_confirmed();
    case.verify_table(&model, 0);
    case.verify_table(&model, 2);
    assert_ne!(case.verify_rest(&model, 1), 0);
    case::wait_calm(&sluice);
    watch.stop();
    case::assert_said_once(&sluice);
}

#[test]
fn a_topic_that_gets_more_partitions_keeps_the_order_of_each_key() {
    let case = Case::new("topicgrow", postgres(), kafka());
    let (writer, watch) = (case.write(23), case.watch());
    let mut sluice = case.start(&["kafka.metadata_max_age=1s"]);
    writer.wait_more(20, LIMIT);
    kafka().topics("alter", &[&case.topic(0), "partitions=6"]);
    sluice.wait_log(LIMIT, &["topicgrow.a has 6 partitions now: records go on to the first 3"]);
    writer.wait_more(60, LIMIT);
    case.wait_confirmed();
    assert!(kafka().dump(&case.topic(0)).iter().all(|record| record.partition < 3));
    assert_eq!(case::said(&sluice, "WARN", "").len(), 1, "{}", sluice.log());
    assert_eq!(sluice.stop(LIMIT), 0);
    // Started anew it spreads keys over all of them. Those of partition p are in p or p + 3 then.
    let sluice = case.start(&[]);
    writer.wait_more(60, LIMIT);
    case.verify(&writer.stop());
    assert!(kafka().dump(&case.topic(0)).iter().any(|record| record.partition >= 3));
    assert_eq!(case::said(&sluice, "WARN", ""), Vec::<String>::new());
    watch.stop();
}

#[test]
fn a_topic_made_anew_is_said_once_and_goes_on_and_the_others_lose_nothing() {
    let case = Case::new("topicanew", postgres(), kafka());
    let (writer, watch) = (case.write(24), case.watch());
    let mut sluice = case.start(&["kafka.metadata_max_age=1s"]);
    for time in 1..=rounds(1, 5) {
        writer.wait_more(20, LIMIT);
        kafka().topic(&case.topic(1), 3);
        eventually(LIMIT, "it is noticed", || {
            case::said(&sluice, "WARN", "topicanew.b was deleted and made anew").len() == time
        });
        writer.wait_more(20, LIMIT);
    }
    let model = writer.stop();
    case.wait_confirmed();
    case.verify_table(&model, 0);
    case.verify_table(&model, 2);
    assert_ne!(case.verify_rest(&model, 1), 0);
    case::wait_calm(&sluice);
    watch.stop();
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_topic_made_anew_with_fewer_partitions_is_waited_for() {
    let case = Case::new("topicfewer", postgres(), kafka());
    let (writer, watch) = (case.write(25), case.watch());
    let mut sluice = case.start(&["kafka.metadata_max_age=1s"]);
    writer.wait_more(20, LIMIT);
    kafka().topic(&case.topic(1), 1);
    sluice
        .wait_log(LIMIT, &["topicfewer.b has 1 of the 3 partitions", "give it 3 again, or start"]);
    eventually(LIMIT, "it is not ready and says what to do", || {
        sluice
            .http("/readyz")
            .is_ok_and(|(status, body)| status == 503 && body.contains("give it 3 again"))
    });
    writer.wait_more(40, LIMIT);
    kafka().topics("alter", &[&case.topic(1), "partitions=3"]);
    sluice.wait_ready(LIMIT);
    writer.wait_more(20, LIMIT);
    let model = writer.stop();
    case.wait_confirmed();
    case.verify_table(&model, 0);
    case.verify_table(&model, 2);
    assert_ne!(case.verify_rest(&model, 1), 0);
    case::wait_calm(&sluice);
    watch.stop();
    case::assert_said_once(&sluice);
    assert_eq!(sluice.stop(LIMIT), 0);
}
