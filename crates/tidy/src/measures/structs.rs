//! Structs: how many fields they have, and which fields hold an anonymous tuple.

use crate::Finding;
use crate::tree::Source;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A struct and the number of its fields.
pub struct Size {
    /// Where it stands, and its name.
    pub place: Finding,
    /// How many fields it has.
    pub fields: usize,
}

/// All structs of production code, the largest first.
pub fn sizes<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<Size> {
    let mut found = Vec::new();
    for source in sources {
        let mut structs = Structs { source, found: Vec::new() };
        structs.visit_file(&source.production);
        found.append(&mut structs.found);
    }
    found.sort_by(|a, b| b.fields.cmp(&a.fields).then_with(|| a.place.cmp(&b.place)));
    found
}

struct Structs<'a> {
    source: &'a Source,
    found: Vec<Size>,
}

impl<'ast> Visit<'ast> for Structs<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let fields = item.fields.len();
        let what = format!("{} has {fields} fields", item.ident);
        self.found.push(Size { place: self.source.finding(item.ident.span().start().line, what), fields });
        visit::visit_item_struct(self, item);
    }
}

/// Fields of structs and of enums' variants whose type has an anonymous tuple in it.
pub fn tuples<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let mut tuples = Tuples { source, found: Vec::new() };
        tuples.visit_file(&source.production);
        found.append(&mut tuples.found);
    }
    found
}

struct Tuples<'a> {
    source: &'a Source,
    found: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Tuples<'_> {
    fn visit_field(&mut self, field: &'ast syn::Field) {
        let mut types = TupleTypes::default();
        types.visit_type(&field.ty);
        if types.found {
            let name = field
                .ident
                .as_ref()
                .map_or_else(|| "a field without a name".to_string(), ToString::to_string);
            self.found.push(self.source.finding(field.span().start().line, name));
        }
    }
}

#[derive(Default)]
struct TupleTypes {
    found: bool,
}

impl<'ast> Visit<'ast> for TupleTypes {
    fn visit_type_tuple(&mut self, tuple: &'ast syn::TypeTuple) {
        self.found |= tuple.elems.len() > 1;
        visit::visit_type_tuple(self, tuple);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_and_tests_are_left_out() {
        let text = "struct Small; struct Pair(u8, u8); struct Three { a: u8, b: u8, c: u8 }
                    #[cfg(test)] struct Four { a: u8, b: u8, c: u8, d: u8 }
                    fn f() { struct Inner { a: u8, b: u8, c: u8, d: u8, e: u8 } }";
        let fields: Vec<usize> =
            sizes([&Source::sample("core", "sample", text)]).iter().map(|s| s.fields).collect();
        assert_eq!(fields, [5, 3, 2, 0]);
    }

    #[test]
    fn tuples_are_found_wherever_they_are_in_a_field() {
        let text =
            "struct S { a: (), b: (u8,), c: (u8, u8), d: Vec<Option<(Id, Time)>>, e: BTreeMap<Id, Time> }
                    enum E { A((u8, u8)), B { c: u8 } } fn f(x: (u8, u8)) {}";
        let names: Vec<String> =
            tuples([&Source::sample("core", "sample", text)]).into_iter().map(|found| found.what).collect();
        assert_eq!(names, ["c", "d", "a field without a name"]);
    }
}
