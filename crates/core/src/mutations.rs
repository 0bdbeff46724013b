//! Deliberate bugs for the simulator's checkers: a checker that cannot fail proves nothing.
//!
//! Without the feature `mutations` every switch is constantly off and the type holds nothing.

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[cfg(feature = "mutations")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
        pub struct Mutations { $($(#[$doc])* pub $name: bool),* }

        #[cfg(not(feature = "mutations"))]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Mutations;

        impl Mutations {
            /// No deliberate bug; with and without the feature.
            #[cfg(feature = "mutations")]
            pub const NONE: Self = Self { $($name: false),* };
            /// No deliberate bug; with and without the feature.
            #[cfg(not(feature = "mutations"))]
            pub const NONE: Self = Self;

            $(
                #[cfg(feature = "mutations")]
                pub(crate) const fn $name(self) -> bool { self.$name }
                #[cfg(not(feature = "mutations"))]
                #[allow(clippy::unused_self, reason = "same shape with and without the feature")]
                pub(crate) const fn $name(self) -> bool { false }
            )*
        }
    };
}

mutations! {
    /// L1: ask first, arm when the grant comes.
    arm_after_grant,
    /// L1: open for any grant, not only the one that names the arming in the timer.
    no_arm_id_check,
    /// L2: grant without a ReadIndex round.
    skip_read_index,
    /// L3: grant although a decision is in flight.
    ignore_in_flight,
    /// L3: a decision in flight ends by time-out.
    in_flight_times_out,
    /// L4: assign before the old lease is over.
    no_not_before,
    /// L4: a new leader does not wait for the leases of its predecessor.
    new_leader_does_not_wait,
    /// L4: the wait leaves out drift and margin.
    no_margin,
    /// L5: the epoch is not burned: the report leaves first, and arming goes on.
    fence_not_burned,
    /// L6: grants go on to a holder that never confirms any.
    no_grant_limit,
    /// L7: always the same generation.
    one_generation,
    /// Serving is skipped: replicas are repointed at the assignment.
    skip_serving,
    /// The replica element stays while Redis is promoted.
    keep_replica_element,
    /// The replica element of a Redis that somebody made writable ends by itself.
    writable_stays_open,
    /// A life that has served is promoted again, whatever somebody made of it.
    promote_blindly,
    /// No bug, but what hides some: the leader asks nobody who hears a master that it does not hear, and leads on.
    lead_unheard,
    /// No bug: a replica's dead link to its master is left to TCP.
    never_relink,
    /// The tail of an old master is overwritten without being kept aside.
    follow_at_once,
    /// Any reporting member may be promoted.
    ignore_eligible,
    /// The n of `WAIT` counts the attached replicas alone.
    wait_for_attached,
    /// A strict master lowers `min-replicas-to-write` when it misses a replica, before the set without it is committed.
    lower_before_commit,
    /// An assignment is taken for any life of Redis.
    ignore_run_id,
    /// A takeover goes on without a grant: the log says who is master.
    act_by_role,
    /// A restarted supervisor acts by what its log is known to have committed, before it has caught up with its last life.
    act_on_old_model,
    /// A master is taken for unreached as soon as its node says that it serves, whatever closed its port before.
    unreached_at_once,
    /// The leader keeps its reasons to itself.
    say_nothing,
    /// How long others are waited for is judged by the wall clock.
    wait_by_wall_clock,
}
