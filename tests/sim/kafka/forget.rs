//! What brokers do not remember: producers that have written nothing for `producer.id.expiration.ms`, and transactional
//! ids that were not used for `transactional.id.expiration.ms`.

use std::time::Duration;

use super::Cluster;

/// Both. It is a day and a week by default, and never less than the minute for which we rely on it.
const EXPIRATION: Duration = Duration::from_secs(75);

impl Cluster {
    pub fn forget(&self) {
        let mut state = self.lock();
        for (topic, all) in &mut state.topics {
            for (number, partition) in all.iter_mut().enumerate() {
                for id in partition.expire(EXPIRATION) {
                    self.trace.say(format_args!("{topic}[{number}] forgets {id}"));
                    self.oracle.forgotten_id(topic, number as i32, id);
                }
            }
        }
        for name in state.transactions.expire(EXPIRATION) {
            self.trace.say(format_args!("{name} is forgotten"));
        }
    }
}
