//! How a struct of two named fields is written as the pair that it stands for.
//!
//! On disk, on the network, in the API and in traces such a struct is `["a", 1]` or `("a", 1)`: short, and as it always was.
//! In the source its parts have names.

/// Gives a struct of two fields the `Debug`, `Serialize` and `Deserialize` of the tuple of the two.
macro_rules! written_as_pair {
    ($name:ident { $first:ident: $first_type:ty, $second:ident: $second_type:ty }) => {
        impl From<($first_type, $second_type)> for $name {
            fn from(($first, $second): ($first_type, $second_type)) -> $name {
                $name { $first, $second }
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(&(&self.$first, &self.$second), f)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                (&self.$first, &self.$second).serialize(serializer)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                <($first_type, $second_type)>::deserialize(deserializer).map($name::from)
            }
        }
    };
}

pub(crate) use written_as_pair;
