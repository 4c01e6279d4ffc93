mod alone;
mod cluster;
mod group;
mod store;
