mod agreement;
mod unused;
