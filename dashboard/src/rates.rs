//! [`Rates`]: how many broadcasts each of the busiest topics has in a second. Plain code.

use std::collections::HashMap;

/// How many broadcasts each of the busiest topics has in a second, on an average of some seconds.
#[derive(Default)]
pub(crate) struct Rates(HashMap<String, f64>);

/// How much of a rate is left after a second.
const DECAY: f64 = 0.75;

/// A rate below this is forgotten.
const LEAST: f64 = 0.02;

/// How many topics are remembered.
const MOST: usize = 2048;

impl Rates {
    /// Adds the broadcasts of a time.
    pub(crate) fn add(&mut self, broadcasts: Vec<(String, u64)>, seconds: f64) {
        let left = DECAY.powf(seconds);
        self.0.values_mut().for_each(|rate| *rate *= left);
        for (topic, count) in broadcasts {
            let rate = count as f64 / seconds.max(0.001) * (1.0 - left);
            if let Some(known) = self.0.get_mut(&topic) {
                *known += rate;
            } else if self.0.len() < MOST {
                self.0.insert(topic, rate);
            }
        }
        self.0.retain(|_, rate| *rate >= LEAST);
        if self.0.is_empty() {
            self.0 = HashMap::new();
        }
    }

    pub(crate) fn of(&self, topic: &str) -> f64 {
        self.0.get(topic).copied().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Vec<(String, f64)> {
        self.0.iter().map(|(topic, rate)| (topic.clone(), *rate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_one_that_ends_is_forgotten() {
        let mut rates = Rates::default();
        for _ in 0..30 {
            rates.add(vec![("room:1".into(), 20)], 2.0);
        }
        assert!((9.9..10.1).contains(&rates.of("room:1")), "{}", rates.of("room:1"));
        for _ in 0..30 {
            rates.add(Vec::new(), 1.0);
        }
        assert!(rates.all().is_empty());
        assert_eq!(rates.0.capacity(), 0);
    }

    #[test]
    fn no_more_topics_are_remembered_than_allowed() {
        let mut rates = Rates::default();
        for second in 0..10 {
            rates.add((0..1000).map(|it| (format!("{second}:{it}"), 5)).collect(), 1.0);
        }
        assert!(rates.0.len() <= MOST);
    }
}
