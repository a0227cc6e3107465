
pub mod oci;
