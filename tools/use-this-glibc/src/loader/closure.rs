//! A program and all that it needs, in the loader's order.

use std::path::PathBuf;

use super::object::Object;
use super::search::{self, Found};
use super::system::Loader;

/// A needed library that was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub name: Vec<u8>,
    /// An index into [`Closure::objects`].
    pub requester: usize,
    /// The file that was found, and why it cannot be loaded.
    pub broken: Option<(PathBuf, String)>,
}

/// What a loader would load for one program.
#[derive(Debug)]
pub struct Closure {
    /// The program, then the loader (which is there before it looks), then the rest as it is loaded.
    pub objects: Vec<Object>,
    /// Indices in the order of the symbol search: breadth first from the program.
    pub order: Vec<usize>,
    pub missing: Vec<Missing>,
}

/// The program's own index.
pub const PROGRAM: usize = 0;

impl Closure {
    /// Loads the program as this loader would.
    pub fn of(program: Object, loader: &Loader) -> crate::error::Result<Self> {
        let mut interpreter = Object::read(&loader.path)?;
        interpreter.requester = Some(PROGRAM);
        let mut closure = Self {
            objects: vec![program, interpreter],
            order: vec![PROGRAM],
            missing: Vec::new(),
        };
        let mut next = 0;
        while let Some(&requester) = closure.order.get(next) {
            next += 1;
            for at in 0..closure.objects[requester].needed.len() {
                let name = closure.objects[requester].needed[at].clone();
                if let Some(object) = closure.load(name, requester, loader)
                    && !closure.order.contains(&object)
                {
                    closure.order.push(object);
                }
            }
        }
        Ok(closure)
    }

    /// The object that goes by this name.
    pub fn called(&self, name: &[u8]) -> Option<usize> {
        self.objects
            .iter()
            .position(|object| object.is_called(name))
    }

    /// An object, whoever asked for it first, and so on up to the program.
    pub fn chain(&self, object: usize) -> Vec<&Object> {
        std::iter::successors(Some(object), |&at| self.objects[at].requester)
            .map(|at| &self.objects[at])
            .collect()
    }

    fn load(&mut self, name: Vec<u8>, requester: usize, loader: &Loader) -> Option<usize> {
        if let Some(loaded) = self.called(&name) {
            return Some(loaded);
        }
        let mut object = match search::find(loader, &name, &self.chain(requester)) {
            Found::Object(object) => *object,
            Found::Nowhere => {
                self.lacks(name, requester, None);
                return None;
            }
            Found::Broken(path, why) => {
                self.lacks(name, requester, Some((path, why)));
                return None;
            }
        };
        // The same file under another name.
        let same = |known: &Object| known.identity == object.identity;
        if let Some(loaded) = self.objects.iter().position(same) {
            self.objects[loaded].names.push(name);
            return Some(loaded);
        }
        object.names.push(name);
        object.requester = Some(requester);
        self.objects.push(object);
        Some(self.objects.len() - 1)
    }

    fn lacks(&mut self, name: Vec<u8>, requester: usize, broken: Option<(PathBuf, String)>) {
        self.missing.push(Missing {
            name,
            requester,
            broken,
        });
    }
}
