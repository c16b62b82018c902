//! Get, List, Create, Update and Delete of one object: thin wrappers over the one write path.

use prost::Message;
use quorumgate_model::{
    command::{Expect, ResourceChange},
    convert,
    digest::Digest,
    resource::{Key, Kind, Name, Stored},
};
use quorumgate_proto::admin::v1::{self as admin, Etag, ResponseHeader, WriteResponse};
use tonic::Status;

use super::{
    apply::{self, Intent, Mode},
    messages,
    places::Places,
};
use crate::admin::{
    desk::{self, Desk, Read},
    failure,
    gate::Call,
};

/// The five calls of one kind. `async_trait` does not see into a macro, so they are written as it would write them.
macro_rules! typed {
    (
        $kind:ident: $get:ident -> $got:ident { $one:ident }, $list:ident -> $listed:ident { $many:ident },
        $create:ident, $update:ident <- $write:ident, $delete:ident
    ) => {
        $crate::admin::config::typed::call!($get(self, call, request: GetObjectRequest) -> $got {
            let (header, stored) = self.desk.get(&call, Kind::$kind, &request).await?;
            let etag = stored.etag.to_string();
            let $one = match convert::resource_shown(&stored.resource).kind {
                Some(resource::Kind::$kind(it)) => Some(it),
                _ => None,
            };
            Ok(Response::new(admin::$got { header: Some(header), $one, etag }))
        });
        $crate::admin::config::typed::call!($list(self, call, request: ListObjectsRequest) -> $listed {
            let (header, config, etags) = self.desk.list(&call, Kind::$kind, &request).await?;
            Ok(Response::new(admin::$listed { header: Some(header), $many: config.$many, etags }))
        });
        $crate::admin::config::typed::call!($create(self, call, request: $write) -> WriteResponse {
            let admin::$write { $one, etag, request_id, message, validate_only } = request;
            let resource = $one.map(resource::Kind::$kind);
            let object = WriteObject { resource, field: stringify!($one), etag, request_id, message, validate_only };
            self.desk.write_object(&call, object, Existing::Never).await.map(Response::new)
        });
        $crate::admin::config::typed::call!($update(self, call, request: $write) -> WriteResponse {
            let admin::$write { $one, etag, request_id, message, validate_only } = request;
            let resource = $one.map(resource::Kind::$kind);
            let object = WriteObject { resource, field: stringify!($one), etag, request_id, message, validate_only };
            self.desk.write_object(&call, object, Existing::Always).await.map(Response::new)
        });
        $crate::admin::config::typed::call!($delete(self, call, request: DeleteObjectRequest) -> WriteResponse {
            self.desk.delete_object(&call, Kind::$kind, request).await.map(Response::new)
        });
    };
}

macro_rules! call {
    ($name:ident($self:ident, $call:ident, $request:ident: $takes:ident) -> $gives:ident $body:block) => {
        fn $name<'service, 'async_trait>(
            &'service $self,
            request: tonic::Request<admin::$takes>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Answer<admin::$gives>> + Send + 'async_trait>>
        where
            'service: 'async_trait,
        {
            Box::pin(async move {
                let ($call, $request) = taken(request)?;
                $body
            })
        }
    };
}

pub(super) use {call, typed};

/// Whether the object must be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Never,
    Always,
}

/// One object to write, whichever its kind.
pub struct WriteObject {
    pub resource: Option<admin::resource::Kind>,
    /// The request's field that holds it: `route`.
    pub field: &'static str,
    pub etag: String,
    pub request_id: String,
    pub message: String,
    pub validate_only: bool,
}

impl Desk {
    pub async fn get(
        &self,
        call: &Call,
        kind: Kind,
        request: &admin::GetObjectRequest,
    ) -> Result<(ResponseHeader, Stored), Status> {
        let state = self.read(call, Read::stale(request.stale)).await?;
        let key = key(kind, &request.name)?;
        apply::require(&state, &key, "name")?;
        Ok((self.header_at(&state), state.resources[&key].clone()))
    }

    pub async fn list(
        &self,
        call: &Call,
        kind: Kind,
        request: &admin::ListObjectsRequest,
    ) -> Result<(ResponseHeader, admin::ConfigSet, Vec<Etag>), Status> {
        let state = self.read(call, Read::stale(request.stale)).await?;
        let wanted = |(key, stored): &(&Key, &Stored)| {
            key.kind == kind && (request.owner.is_empty() || stored.resource.owner() == request.owner)
        };
        let found = || state.resources.iter().filter(wanted);
        let config = convert::config_shown(found().map(|(_, stored)| &stored.resource));
        let etags = found().map(|(key, stored)| messages::etag(key, stored.etag)).collect();
        Ok((self.header_at(&state), config, etags))
    }

    pub async fn write_object(
        &self,
        call: &Call,
        object: WriteObject,
        existing: Existing,
    ) -> Result<WriteResponse, Status> {
        let field = object.field;
        let given = object.resource.ok_or_else(|| failure::bad_field(field, "found nothing; allowed: the object"))?;
        let given = admin::Resource { kind: Some(given) };
        let parts = [&given.encode_to_vec()[..], object.etag.as_bytes(), object.message.as_bytes()];
        let asked = desk::asked(call, &parts);
        let resource = convert::resource_from(given);
        let resource = resource.map_err(|wrong| failure::invalid(&wrong.under(field)))?;
        let key = resource.key();
        let expect = match (existing, object.etag.as_str()) {
            (Existing::Never, "") => Expect::Missing,
            (Existing::Never, _) => return Err(failure::bad_field("etag", "allowed: none for a new object")),
            (Existing::Always, "") => Expect::Anything,
            (Existing::Always, etag) => apply::expectation(etag, "etag")?,
        };
        let state = self.read(call, Read::Linear).await?;
        let request_id = desk::request_id(&object.request_id)?;
        let mode = Mode::validate_only(object.validate_only);
        if let Some(answer) = self.repeated(call, &state, request_id, asked, mode).await {
            return answer;
        }
        if existing == Existing::Always {
            apply::require(&state, &key, field)?;
        }
        let places = Places::one(&key, field);
        let change = ResourceChange { expect, ..apply::upsert(resource) };
        let intent = Intent { request_id, asked, message: object.message, mode, ..single(change, places) };
        self.carry_out(call, &state, intent).await
    }

    pub async fn delete_object(
        &self,
        call: &Call,
        kind: Kind,
        request: admin::DeleteObjectRequest,
    ) -> Result<WriteResponse, Status> {
        let key = key(kind, &request.name)?;
        let request_id = desk::request_id(&request.request_id)?;
        let parts = [&request.name, &request.etag, &request.message].map(|part| part.as_bytes());
        let asked = desk::asked(call, &parts);
        let state = self.read(call, Read::Linear).await?;
        let mode = Mode::validate_only(request.validate_only);
        if let Some(answer) = self.repeated(call, &state, request_id, asked, mode).await {
            return answer;
        }
        apply::require(&state, &key, "name")?;
        let expect = match request.etag.as_str() {
            "" => Expect::Anything,
            etag => apply::expectation(etag, "etag")?,
        };
        let places = Places::one(&key, "name");
        let change = ResourceChange { expect, ..apply::delete(key) };
        let intent = Intent { request_id, asked, message: request.message, mode, ..single(change, places) };
        self.carry_out(call, &state, intent).await
    }
}

fn single(change: ResourceChange, places: Places) -> Intent {
    Intent {
        changes: vec![change],
        places,
        expected_revision: None,
        request_id: uuid::Uuid::nil(),
        asked: Digest::default(),
        message: String::new(),
        trial: None,
        rollback_of: None,
        mode: Mode::Write,
        warnings: Vec::new(),
    }
}

fn key(kind: Kind, name: &str) -> Result<Key, Status> {
    let name: Name = name.parse().map_err(|why: String| failure::bad_field("name", &why))?;
    Ok(Key { kind, name })
}
