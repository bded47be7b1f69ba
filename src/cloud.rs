//! The cloud as the use cases see it.
