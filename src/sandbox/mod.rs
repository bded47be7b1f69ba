//! A simulated UCloud and its hosts, for every test and for people without an account.
//!
//! It is written from the API's documentation alone and knows nothing of the driver's own client: where the two
//! agree, both understood the documents alike. [`cloud`] is the account with its API, its metadata service and its
//! faults; [`hosts`] makes its disks real, as loop devices of this machine, or leaves them imaginary.

pub mod cloud;
pub mod hosts;
