//! Orders that hosts carried out, by epoch.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_core::Epoch;

use crate::check::Violation;

#[derive(Debug, Default)]
pub struct Orders {
    /// Highest epoch carried out, by host, group and kind of order.
    highest: BTreeMap<(usize, usize, &'static str), Epoch>,
    /// Host, group and epoch at which the VIP was up.
    vips: BTreeSet<(usize, usize, Epoch)>,
}

impl Orders {
    /// # Errors
    /// An order of a higher epoch was carried out there before.
    pub fn executed(
        &mut self,
        host: usize,
        group: usize,
        what: &'static str,
        epoch: Epoch,
    ) -> Result<(), Violation> {
        let before = self.highest.entry((host, group, what)).or_default();
        if epoch < *before {
            return Err(Violation::EpochFell { group, host, what, epoch, before: *before });
        }
        *before = epoch;
        Ok(())
    }

    pub fn vip_up(&mut self, host: usize, group: usize, epoch: Epoch) {
        self.vips.insert((host, group, epoch));
    }

    #[must_use]
    pub fn was_up(&self, host: usize, group: usize, epoch: Epoch) -> bool {
        self.vips.contains(&(host, group, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_a_lower_epoch_is_caught() {
        let mut orders = Orders::default();
        assert!(orders.executed(0, 0, "role", Epoch(2)).is_ok());
        assert!(orders.executed(0, 0, "role", Epoch(2)).is_ok());
        assert!(orders.executed(0, 0, "open", Epoch(1)).is_ok());
        assert!(orders.executed(1, 0, "role", Epoch(1)).is_ok());
        assert!(matches!(
            orders.executed(0, 0, "role", Epoch(1)),
            Err(Violation::EpochFell { before: Epoch(2), .. })
        ));
    }
}
