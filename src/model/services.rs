//! The services that have endpoints, and the service tags that hold their addresses.

/// One service that a subnet can have an endpoint for (Azure, "Virtual Network service endpoints").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointService {
    /// Its name as Azure spells it: `Microsoft.Storage`.
    pub name: &'static str,
    /// The global service tags of its addresses; more than one only where Azure does not say which it is.
    pub tags: &'static [&'static str],
}

/// Every service with endpoints.
pub const ENDPOINT_SERVICES: [EndpointService; 11] = [
    EndpointService { name: STORAGE, tags: &["Storage"] },
    EndpointService { name: STORAGE_GLOBAL, tags: &["Storage"] },
    EndpointService { name: SQL, tags: &["Sql"] },
    EndpointService { name: "Microsoft.AzureCosmosDB", tags: &["AzureCosmosDB"] },
    EndpointService { name: "Microsoft.KeyVault", tags: &["AzureKeyVault"] },
    EndpointService { name: "Microsoft.ServiceBus", tags: &["ServiceBus"] },
    EndpointService { name: "Microsoft.EventHub", tags: &["EventHub"] },
    EndpointService { name: ACTIVE_DIRECTORY, tags: &["AzureActiveDirectory"] },
    EndpointService { name: "Microsoft.Web", tags: &["AppService"] },
    EndpointService {
        name: "Microsoft.CognitiveServices",
        tags: &["CognitiveServicesManagement", "CognitiveServicesFrontend"],
    },
    EndpointService { name: "Microsoft.ContainerRegistry", tags: &["AzureContainerRegistry"] },
];

/// The endpoint for storage in the network's region.
pub const STORAGE: &str = "Microsoft.Storage";

/// The endpoint of Data Lake Storage Gen1, which is in the network's region.
pub const ACTIVE_DIRECTORY: &str = "Microsoft.AzureActiveDirectory";

/// The endpoint for storage in any region; excludes `Microsoft.Storage` on the same subnet.
pub const STORAGE_GLOBAL: &str = "Microsoft.Storage.Global";

/// The service whose endpoints cover the network's own region, whatever their locations.
pub const SQL: &str = "Microsoft.Sql";

/// Finds a service by its name; case does not count.
pub fn endpoint_service(name: &str) -> Option<&'static EndpointService> {
    ENDPOINT_SERVICES.iter().find(|service| service.name.eq_ignore_ascii_case(name))
}
